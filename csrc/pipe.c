/* Pipe transports: what loop.connect_read_pipe() and connect_write_pipe() make
   of pipes, FIFOs, sockets and character devices such as terminals.

   Bytes go in and out as those of streams do.  What differs is asyncio's: an
   exception of data_received() is reported and ends nothing; who writes learns
   from the descriptor becoming readable that nobody reads any more.

   The file object stays the user's until connection_lost(): the transport
   closes it then, and until then it works with its descriptor. */
#include "ouroloop.h"

#include <errno.h>
#include <limits.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static bool
is_io_error(PyObject *exc)
{
    if (!PyErr_GivenExceptionMatches(exc, PyExc_OSError)) {
        return false;
    }
    PyObject *number = PyObject_GetAttrString(exc, "errno");
    long value =
        number == NULL || number == Py_None ? 0 : PyLong_AsLong(number);
    Py_XDECREF(number);
    PyErr_Clear();
    return value == EIO;
}

/* Debug mode's note.  Runs Python. */
static int
log_closed_by_peer(TransportObject *self)
{
    if (!self->loop->debug) {
        return 0;
    }
    PyObject *result = PyObject_CallMethod(self->state->logger, "info", "sO",
                                           "%r was closed by peer", self);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* Reading. */

static ssize_t
receive(int fd, void *buffer, size_t size)
{
    return read(fd, buffer, size);
}

/* There is nothing to send first. */
static int
flush_nothing(TransportObject *Py_UNUSED(self))
{
    return 0;
}

/* loop.call_soon(protocol.eof_received) */
static int
queue_eof_received(TransportObject *self)
{
    LoopObject *loop = self->loop;
    PyObject *method =
        PyObject_GetAttr(self->protocol, self->state->str_eof_received);
    HandleObject *handle =
        method == NULL ? NULL : Handle_new(loop, method, NULL, 0, NULL);
    int result = handle == NULL ? -1
                                : Ready_push(&loop->ready, READY_HANDLE,
                                             (PyObject *)handle, NULL, NULL);

    Py_XDECREF(method);
    Py_XDECREF(handle);
    return result;
}

/* Nobody writes any more. */
static int
read_end(TransportObject *self)
{
    if (log_closed_by_peer(self) < 0) {
        return -1;
    }
    if (self->loop == NULL || self->protocol == NULL) {
        return 0;
    }
    PyObject *raised =
        queue_eof_received(self) < 0 ? PyErr_GetRaisedException() : NULL;
    int result = Transport_close(self);
    if (raised != NULL) {
        PyErr_SetRaisedException(raised);
        return -1;
    }
    return result;
}

/* -1 with any exception.  Runs Python. */
static int
read_input(TransportObject *self)
{
    PyObject *data = Stream_read_bytes(self);

    if (data == NULL) {
        if (PyErr_Occurred()) {
            return -1;
        }
        if (errno == EAGAIN || errno == EWOULDBLOCK) {
            return 0;
        }
        PyErr_SetFromErrno(PyExc_OSError);
        return Transport_fatal_error(self,
                                     "Fatal read error on pipe transport");
    }
    if (PyBytes_GET_SIZE(data) == 0) {
        Py_DECREF(data);
        return read_end(self);
    }
    PyObject *result =
        Transport_call(self, self->state->str_data_received, data);
    Py_DECREF(data);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

static int
read_ready(TransportObject *self)
{
    LoopObject *loop = self->loop;

    if (self->conn_lost || !self->reading || read_input(self) == 0) {
        return 0;
    }
    if (is_fatal()) {
        return -1;
    }
    /* As that of asyncio's handle, which is called again.  With a copy of the
       context: that one is entered, and the exception handler enters its. */
    PyObject *exc = PyErr_GetRaisedException();
    PyObject *method = PyObject_GetAttrString((PyObject *)self, "_read_ready");
    if (method == NULL) {
        Py_XDECREF(exc);
        return -1;
    }
    PyErr_SetRaisedException(exc);
    int result = report_call(loop, method, NULL, NULL);
    Py_DECREF(method);
    return result;
}

static const transport_ops read_ops = {
    .on_event = Stream_on_event,
    .flush = flush_nothing,
    .discard = Stream_discard,
    .abandon = Transport_abandon,
    .keeps_open = true,
    .is_ordinary = is_io_error,
    .read_ready = read_ready,
    .receive = receive,
};

/* Writing. */

/* Outside of a socket nothing but ignoring SIGPIPE, as Python does, makes an
   error of it. */
static ssize_t
send_to_file(int fd, struct iovec *parts, size_t count)
{
    return count == 1 ? write(fd, parts[0].iov_base, parts[0].iov_len)
                      : writev(fd, parts, (int)count);
}

/* The other end was closed (or, if it is a socket, sends: asyncio cannot tell
   either). */
static int
reader_gone(TransportObject *self)
{
    PyObject *exc = NULL;

    if (self->conn_lost || self->paused) {
        return 0;
    }
    if (log_closed_by_peer(self) < 0) {
        return -1;
    }
    if (self->unsent > 0) {
        exc = PyObject_CallNoArgs(PyExc_BrokenPipeError);
        if (exc == NULL) {
            return -1;
        }
    }
    int result = Transport_abort(self, exc == NULL ? Py_None : exc);
    Py_XDECREF(exc);
    return result;
}

#define WRITE_OPS                                                       \
    .on_event = Stream_on_event, .flush = Stream_settle,                \
    .discard = Stream_discard, .abandon = Transport_abandon,            \
    .keeps_open = true,                                                 \
    .read_ready = reader_gone, .write_ready = Stream_write_ready,       \
    .write_error = "Fatal write error on pipe transport"

/* What is sent at once into a pipe arrives in one piece up to this size, as
   each part of it does when sent alone; who shares it relies on that. */
static const transport_ops pipe_ops = {WRITE_OPS, .send = send_to_file,
                                       .max_held_back = PIPE_BUF};

static const transport_ops socket_ops = {
    WRITE_OPS, .send = Stream_send, .max_held_back = STREAM_MAX_HELD_BACK};

/* Each write is a record to many devices and to sockets without a stream; on
   a terminal, others write as well and their order shows. */
static const transport_ops device_ops = {WRITE_OPS, .send = send_to_file};

static const transport_ops *
choose_write_ops(int fd, mode_t mode)
{
    int type = 0;
    socklen_t size = sizeof(type);

    if (fd <= STDERR_FILENO) {
        return &device_ops;  // print() writes there, too.
    }
    if (S_ISFIFO(mode)) {
        return &pipe_ops;
    }
    return S_ISSOCK(mode) &&
            getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 &&
            type == SOCK_STREAM
        ? &socket_ops
        : &device_ops;
}

/* Something was written that cannot be sent; who goes on is told in the
   log. */
static PyObject *
write_lost(TransportObject *self)
{
    enum { LOG_THRESHOLD = 5 }; /* LOG_THRESHOLD_FOR_CONNLOST_WRITES */

    if (self->conn_lost > LOG_THRESHOLD) {
        PyObject *result = PyObject_CallMethod(
            self->state->logger, "warning", "s",
            "pipe closed by peer or os.write(pipe, data) raised exception.");
        if (result == NULL) {
            return NULL;
        }
        Py_DECREF(result);
    }
    if (self->conn_lost > 0) {
        self->conn_lost++;
    }
    Py_RETURN_NONE;
}

/* The set exception ends the pipe, unless there is something that waits before
   it.  Runs Python. */
static PyObject *
refuse(TransportObject *self, PyObject *data)
{
    PyObject *exc = PyErr_GetRaisedException();
    PyObject *result = NULL;

    if (Stream_settle(self) < 0) {
        Py_DECREF(exc);
        return NULL;
    }
    if (self->closing) {
        result = write_lost(self);
    }
    else if (self->unsent > 0) {
        PyErr_Format(PyExc_TypeError, "can't concat %.100s to bytearray",
                     Py_TYPE(data)->tp_name);
    }
    else {
        PyErr_SetRaisedException(Py_NewRef(exc));
        if (Transport_fatal_error(self, self->ops->write_error) == 0) {
            result = Py_NewRef(Py_None);
        }
    }
    Py_DECREF(exc);
    return result;
}

static PyObject *
WritePipeTransport_write(TransportObject *self, PyObject *const *args,
                         Py_ssize_t nargs, PyObject *kwnames)
{
    static const arg_spec spec = {"write", 1, 1, 1, {ARG(data)}};
    PyObject *data;

    if (parse_one_arg(self->state, &spec, args, nargs, kwnames, &data) < 0) {
        return NULL;
    }
    if (!PyBytes_Check(data) && !PyByteArray_Check(data) &&
        !PyMemoryView_Check(data)) {
        PyErr_Format(PyExc_AssertionError, "%R", data);
        return NULL;
    }
    Py_ssize_t size = PyObject_Size(data);
    if (size <= 0) {
        return size < 0 ? NULL : Py_NewRef(Py_None);
    }
    if (self->closing) {
        return write_lost(self);
    }
    PyObject *bytes = Stream_copy(data);
    if (bytes == NULL) {
        return refuse(self, data);
    }
    if (self->unsent > 0 &&
        self->unsent + (size_t)PyBytes_GET_SIZE(bytes) >
            self->ops->max_held_back) {
        /* Runs Python. */
        if (Stream_settle(self) < 0 || self->closing) {
            Py_DECREF(bytes);
            return PyErr_Occurred() ? NULL : write_lost(self);
        }
    }
    if (Stream_queue(self, bytes) < 0 || Stream_send_later(self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
WritePipeTransport_write_eof(TransportObject *self,
                             PyObject *Py_UNUSED(ignored))
{
    if (Transport_close(self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
WritePipeTransport_can_write_eof(TransportObject *Py_UNUSED(self),
                                 PyObject *Py_UNUSED(ignored))
{
    Py_RETURN_TRUE;
}

/* Opening. */

/* The descriptor of the file object and its mode; -1 with an exception. */
static int
examine(PyObject *file, struct stat *status)
{
    PyObject *number = PyObject_CallMethod(file, "fileno", NULL);
    long fd = number == NULL ? -1 : PyLong_AsLong(number);

    Py_XDECREF(number);
    if (fd == -1 && PyErr_Occurred()) {
        return -1;
    }
    if (fd < 0 || fd > INT_MAX || fstat((int)fd, status) < 0) {
        raise_uv(UV_EBADF);
        return -1;
    }
    return (int)fd;
}

/* Only one may watch a descriptor, but a terminal may be read and written by
   one and the same. */
static int
duplicate_if_shared(LoopObject *loop, int fd, mode_t mode)
{
    if (!S_ISCHR(mode)) {
        fd_entry *entry = Fds_reserve(loop, fd);
        if (entry == NULL) {
            return -1;
        }
        if (entry->transport == NULL) {
            return fd;
        }
    }
    int duplicate = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (duplicate < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
    }
    return duplicate;
}

/* What asyncio refuses; nothing is left of the arguments' file then. */
static int
check_kind(mode_t mode, const char *refusal)
{
    if (S_ISFIFO(mode) || S_ISSOCK(mode) || S_ISCHR(mode)) {
        return 0;
    }
    PyErr_SetString(PyExc_ValueError, refusal);
    return -1;
}

/* Arguments of _make_*_pipe_transport(), and what the file is. */
static int
parse(LoopObject *self, const arg_spec *spec, PyObject *const *args,
      Py_ssize_t nargs, PyObject *kwnames, transport_origin *from,
      struct stat *status)
{
    PyObject *given[4];

    if (parse_args(self->state, spec, args, nargs, kwnames, given) < 0 ||
        Fds_check_open(self) < 0) {
        return -1;
    }
    from->loop = self;
    from->pipe = true;
    from->sock = given[0];
    from->protocol = given[1];
    from->waiter = given[2] == Py_None ? NULL : given[2];
    from->extra = given[3] == Py_None ? NULL : given[3];
    from->fd = examine(given[0], status);
    return from->fd < 0 ? -1 : 0;
}

/* New.  Runs Python. */
static TransportObject *
open_transport(PyTypeObject *type, const transport_ops *ops, mode_t mode,
               transport_origin *from)
{
    LoopObject *loop = from->loop;
    TransportObject *self = NULL;
    int own = duplicate_if_shared(loop, from->fd, mode);

    if (own < 0) {
        return NULL;
    }
    from->duplicate = own != from->fd;
    from->fd = own;
    from->extra = from->extra == NULL ? PyDict_New() : Py_NewRef(from->extra);
    if (from->extra == NULL ||
        PyObject_SetItem(from->extra, loop->state->str_pipe, from->sock) < 0) {
        goto error;
    }
    self = (TransportObject *)type->tp_alloc(type, 0);
    if (self == NULL) {
        goto error;
    }
    self->ops = ops;
    self->max_size = STREAM_MAX_READ;
    if (Transport_open(self, from) < 0) {
        goto error;
    }
    if (self->unwatchable) {
        /* Otherwise libuv has done it. */
        (void)fcntl(own, F_SETFL, fcntl(own, F_GETFL) | O_NONBLOCK);
    }
    Py_DECREF(from->extra);
    return self;
error:
    if (from->duplicate) {
        close(own);
    }
    Py_XDECREF(from->extra);
    Py_XDECREF(self);
    return NULL;
}

PyObject *
Loop__make_read_pipe_transport(LoopObject *self, PyObject *const *args,
                               Py_ssize_t nargs, PyObject *kwnames)
{
    static const arg_spec spec = {
        "_make_read_pipe_transport",
        4,
        4,
        2,
        {ARG(pipe), ARG(protocol), ARG(waiter), ARG(extra)}};
    transport_origin from = {0};
    struct stat status;

    if (parse(self, &spec, args, nargs, kwnames, &from, &status) < 0 ||
        check_kind(status.st_mode,
                   "Pipe transport is for pipes/sockets only.") < 0) {
        return NULL;
    }
    return (PyObject *)open_transport(self->state->ReadPipeTransportType,
                                      &read_ops, status.st_mode, &from);
}

PyObject *
Loop__make_write_pipe_transport(LoopObject *self, PyObject *const *args,
                                Py_ssize_t nargs, PyObject *kwnames)
{
    static const arg_spec spec = {
        "_make_write_pipe_transport",
        4,
        4,
        2,
        {ARG(pipe), ARG(protocol), ARG(waiter), ARG(extra)}};
    transport_origin from = {0};
    struct stat status;

    if (parse(self, &spec, args, nargs, kwnames, &from, &status) < 0 ||
        check_kind(status.st_mode,
                   "Pipe transport is only for pipes, sockets and "
                   "character devices") < 0) {
        return NULL;
    }
    const transport_ops *ops = choose_write_ops(from.fd, status.st_mode);
    TransportObject *transport = open_transport(
        self->state->WritePipeTransportType, ops, status.st_mode, &from);
    if (transport != NULL && S_ISCHR(status.st_mode)) {
        /* Who reads a terminal does not close the way for who writes. */
        transport->paused = true;
    }
    return (PyObject *)transport;
}

/* The types. */

static const char *
repr_state(TransportObject *self)
{
    return self->abandoned ? ""
        : !self->open      ? " closed"
        : self->closing    ? " closing"
                           : "";
}

static bool
has_selector(TransportObject *self)
{
    return self->loop != NULL && !self->loop->closed;
}

static PyObject *
ReadPipeTransport_repr(TransportObject *self)
{
    const char *activity = self->abandoned ? "open"
        : !self->open                      ? "closed"
        : !has_selector(self)              ? "open"
        : self->reading                    ? "polling"
                                           : "idle";
    return PyUnicode_FromFormat("<ReadPipeTransport%s fd=%d %s>",
                                repr_state(self), self->fd, activity);
}

static PyObject *
WritePipeTransport_repr(TransportObject *self)
{
    if (!self->open || !has_selector(self)) {
        return PyUnicode_FromFormat(
            "<WritePipeTransport%s fd=%d %s>", repr_state(self), self->fd,
            self->open || self->abandoned ? "open" : "closed");
    }
    return PyUnicode_FromFormat(
        "<WritePipeTransport%s fd=%d %s bufsize=%zu>", repr_state(self),
        self->fd, self->writing ? "polling" : "idle", self->unsent);
}

static PyObject *
get__pipe(TransportObject *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self->open ? self->sock : Py_None);
}

/* Whoever closes the file of a transport that outlived its loop can have it
   forgotten, as asyncio's own tests do. */
static int
set__pipe(TransportObject *self, PyObject *value, void *Py_UNUSED(closure))
{
    if (!self->abandoned || (value != NULL && value != Py_None)) {
        PyErr_SetString(
            PyExc_AttributeError,
            "_pipe can be set to None only, and only when the loop "
            "is closed");
        return -1;
    }
    Py_CLEAR(self->sock);
    return 0;
}

static PyObject *
get__loop(TransportObject *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self->loop == NULL ? Py_None : (PyObject *)self->loop);
}

static PyObject *
get__protocol(TransportObject *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self->protocol == NULL ? Py_None : self->protocol);
}

PyDoc_STRVAR(ReadPipeTransport_doc,
"The end of a pipe or terminal that is read; see asyncio.ReadTransport.");
PyDoc_STRVAR(WritePipeTransport_doc,
"The end of a pipe or terminal that is written to; see\n"
"asyncio.WriteTransport.");
PyDoc_STRVAR(write_doc,
"write($self, data)\n--\n\n"
"Send bytes, a bytearray or a memoryview.\n\n"
"What is written to a pipe in one callback goes out together when it ends.\n"
"Raise AssertionError for anything else.");
PyDoc_STRVAR(write_eof_doc,
"write_eof($self, /)\n--\n\n"
"Close the pipe once what was written is sent.");
PyDoc_STRVAR(can_write_eof_doc,
"can_write_eof($self, /)\n--\n\n"
"Return True.");

static PyMemberDef ReadPipeTransport_members[] = {
    {"__dictoffset__", T_PYSSIZET, offsetof(TransportObject, dict), READONLY},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(TransportObject, weakrefs),
     READONLY},
    {"max_size", T_UINT, offsetof(TransportObject, max_size), 0,
     "The most bytes that one read asks for."},
    {"_fileno", T_INT, offsetof(TransportObject, fd), READONLY},
    {"_closing", T_BOOL, offsetof(TransportObject, closing), READONLY},
    {"_paused", T_BOOL, offsetof(TransportObject, paused), READONLY},
    {NULL},
};

static PyGetSetDef ReadPipeTransport_getset[] = {
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {"_loop", (getter)get__loop, NULL, NULL, NULL},
    {"_pipe", (getter)get__pipe, (setter)set__pipe, NULL, NULL},
    {"_protocol", (getter)get__protocol, NULL, NULL, NULL},
    {NULL},
};

static PyType_Slot ReadPipeTransport_slots[] = {
    {Py_tp_doc, (void *)ReadPipeTransport_doc},
    {Py_tp_dealloc, Transport_dealloc},
    {Py_tp_traverse, Transport_traverse},
    {Py_tp_clear, Transport_clear},
    {Py_tp_repr, ReadPipeTransport_repr},
    {Py_tp_methods, TRANSPORT_READ_METHODS},
    {Py_tp_members, ReadPipeTransport_members},
    {Py_tp_getset, ReadPipeTransport_getset},
    {0, NULL},
};

static PyType_Spec ReadPipeTransport_spec = {
    .name = "ouroloop._core.ReadPipeTransport",
    .basicsize = sizeof(TransportObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
        Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = ReadPipeTransport_slots,
};

static PyMethodDef WritePipeTransport_methods[] = {
    {"write", (PyCFunction)(void (*)(void))WritePipeTransport_write,
     METH_FASTCALL | METH_KEYWORDS, write_doc},
    {"write_eof", (PyCFunction)WritePipeTransport_write_eof, METH_NOARGS,
     write_eof_doc},
    {"can_write_eof", (PyCFunction)WritePipeTransport_can_write_eof,
     METH_NOARGS, can_write_eof_doc},
    {NULL},
};

static PyMemberDef WritePipeTransport_members[] = {
    {"_fileno", T_INT, offsetof(TransportObject, fd), READONLY},
    {NULL},
};

static PyGetSetDef WritePipeTransport_getset[] = {
    {"_pipe", (getter)get__pipe, (setter)set__pipe, NULL, NULL},
    {NULL},
};

static PyType_Slot WritePipeTransport_slots[] = {
    {Py_tp_doc, (void *)WritePipeTransport_doc},
    {Py_tp_dealloc, Transport_dealloc},
    {Py_tp_traverse, Transport_traverse},
    {Py_tp_clear, Transport_clear},
    {Py_tp_repr, WritePipeTransport_repr},
    {Py_tp_methods, WritePipeTransport_methods},
    {Py_tp_members, WritePipeTransport_members},
    {Py_tp_getset, WritePipeTransport_getset},
    {0, NULL},
};

static PyType_Spec WritePipeTransport_spec = {
    .name = "ouroloop._core.WritePipeTransport",
    .basicsize = sizeof(TransportObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
        Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = WritePipeTransport_slots,
};

static PyTypeObject *
make_type(PyObject *module, PyType_Spec *spec, PyTypeObject *base)
{
    PyObject *bases = PyTuple_Pack(1, base);
    PyObject *type =
        bases == NULL ? NULL : PyType_FromModuleAndSpec(module, spec, bases);

    Py_XDECREF(bases);
    return (PyTypeObject *)type;
}

/* asyncio's, which has no methods for writing; its one field is where that of
   the other transports is, as Transport_setup_type() has found. */
int
ReadPipeTransport_setup_type(PyObject *module, module_state *state)
{
    PyTypeObject *base = (PyTypeObject *)state->ReadTransport;

    if (base->tp_basicsize != offsetof(TransportObject, unused_high_water)) {
        PyErr_SetString(PyExc_SystemError,
                        "ouroloop does not know this asyncio.ReadTransport");
        return -1;
    }
    state->ReadPipeTransportType =
        make_type(module, &ReadPipeTransport_spec, base);
    return state->ReadPipeTransportType == NULL
        ? -1
        : PyModule_AddType(module, state->ReadPipeTransportType);
}

int
WritePipeTransport_setup_type(PyObject *module, module_state *state)
{
    /* Extra info is a plain dict, and it does not read. */
    static const char *const stock[] = {"_extra", "get_extra_info",
                                        "is_reading", "pause_reading",
                                        "resume_reading"};
    PyTypeObject *type =
        make_type(module, &WritePipeTransport_spec, state->TransportType);

    state->WritePipeTransportType = type;
    if (type == NULL) {
        return -1;
    }
    for (size_t i = 0; i < Py_ARRAY_LENGTH(stock); i++) {
        PyObject *value =
            PyObject_GetAttrString(state->ReadTransport, stock[i]);
        int result = value == NULL
            ? -1
            : PyObject_SetAttrString((PyObject *)type, stock[i], value);
        Py_XDECREF(value);
        if (result < 0) {
            return -1;
        }
    }
    return PyModule_AddType(module, type);
}

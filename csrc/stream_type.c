/* The type of stream transports: a socket, TCP or Unix, that is connected. */
#include "ouroloop.h"

#include <netinet/tcp.h>

static int
check_write(TransportObject *self, const char *method)
{
    if (self->eof) {
        PyErr_Format(PyExc_RuntimeError, "Cannot call %s() after write_eof()",
                     method);
        return -1;
    }
    if (self->empty_waiter != NULL) {
        PyErr_Format(PyExc_RuntimeError,
                     "unable to %s; sendfile is in progress", method);
        return -1;
    }
    return 0;
}

static PyObject *
refuse(PyObject *data)
{
    PyObject *name =
        PyObject_GetAttrString((PyObject *)Py_TYPE(data), "__name__");
    if (name != NULL) {
        PyErr_Format(PyExc_TypeError,
                     "data argument must be a " COMPAT_WRITABLE ", not %R",
                     name);
        Py_DECREF(name);
    }
    return NULL;
}

int
Stream_write(TransportObject *self, PyObject *bytes, bool more)
{
    enum { MAX_GATHERED = 256 * 1024 }; /* bytes per system call */
    int lost = check_write(self, "write") < 0 ? -1 : Transport_is_lost(self);

    if (lost != 0) {
        Py_DECREF(bytes);
        return lost < 0 ? -1 : 0;
    }
    if (Stream_queue(self, bytes) < 0) {
        return -1;
    }
    if (!more || self->writing || !self->loop->collecting ||
        self->unsent >= MAX_GATHERED) {
        return Stream_send_later(self);
    }
    /* Should there be no other call after all, it is sent nevertheless. */
    Stream_hold_back(self);
    return 0;
}

/* data is not one piece of memory, as the set exception says: that ends the
   connection, behind what was written before.  -1 with any exception.  Runs
   Python. */
static int
refuse_pieces(TransportObject *self, PyObject *data)
{
    if (PyErr_ExceptionMatches(PyExc_MemoryError)) {
        return -1;
    }
    PyObject *exc = PyErr_GetRaisedException();
    int lost = Stream_settle(self) < 0 ? -1 : Transport_is_lost(self);

    if (lost != 0) {
        Py_DECREF(exc);
        return lost < 0 ? -1 : 0;
    }
    if (COMPAT_UNSENT_IS_BYTEARRAY && self->unsent > 0) {
        Py_DECREF(exc);
        PyErr_Format(PyExc_TypeError, "can't set bytearray slice from %.100s",
                     Py_TYPE(data)->tp_name);
        return -1;
    }
    PyErr_SetRaisedException(exc);
    return Transport_fatal_error(self, self->ops->write_error);
}

static PyObject *
write_data(TransportObject *self, PyObject *data)
{
    if (!PyBytes_Check(data) && !PyByteArray_Check(data) &&
        !PyMemoryView_Check(data)) {
        return refuse(data);
    }
    if (check_write(self, "write") < 0) {
        return NULL;
    }
    Py_ssize_t size = PyObject_Size(data);
    if (size <= 0) {
        if (size < 0) {
            return NULL;
        }
        Py_RETURN_NONE;
    }
    int lost = Transport_is_lost(self);
    if (lost < 0) {
        return NULL;
    }
    if (lost) {
        Py_RETURN_NONE;
    }
    /* What may still change is copied; so is what may run Python when it is
       let go. */
    PyObject *bytes = Stream_copy(data);
    if (bytes == NULL
            ? refuse_pieces(self, data) < 0
            : Stream_queue(self, bytes) < 0 || Stream_send_later(self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* b"".join(list), as one bytes object. */
static PyObject *
join(PyObject *list)
{
    PyObject *empty = PyBytes_FromStringAndSize(NULL, 0);
    PyObject *joined =
        empty == NULL ? NULL : PyObject_CallMethod(empty, "join", "(O)", list);

    Py_XDECREF(empty);
    return joined;
}

/* A list of bytes objects and of memoryviews of all else. */
static PyObject *
as_views(PyObject *iterable)
{
    PyObject *list = PySequence_List(iterable);

    for (Py_ssize_t i = 0; list != NULL && i < PyList_GET_SIZE(list); i++) {
        PyObject *item = PyList_GET_ITEM(list, i);
        if (PyBytes_CheckExact(item)) {
            continue;
        }
        int empty = COMPAT_WRITELINES_SKIPS ? PyObject_Not(item) : 0;
        PyObject *view = empty == 0 ? PyMemoryView_FromObject(item)
            : empty > 0             ? PyBytes_FromStringAndSize(NULL, 0)
                                    : NULL;
        if (view == NULL) {
            Py_CLEAR(list);
            break;
        }
        PyList_SetItem(list, i, view);
    }
    return list;
}

/* Turn the views into bytes.  1; 0: there is one that cannot be, which ended
   the connection; -1 with any exception. */
static int
copy_views(TransportObject *self, PyObject *list)
{
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++) {
        PyObject *item = PyList_GET_ITEM(list, i);
        PyObject *bytes = Stream_copy(item);
        if (bytes == NULL) {
            return refuse_pieces(self, item);
        }
        PyList_SetItem(list, i, bytes);
    }
    return 1;
}

static PyObject *
write_chunks(TransportObject *self, PyObject *chunks)
{
    PyObject *result = NULL, *list = NULL;

    if (COMPAT_WRITELINES_JOINS) {
        PyObject *joined = join(chunks);
        if (joined != NULL) {
            result = write_data(self, joined);
            Py_DECREF(joined);
        }
        return result;
    }
    if (check_write(self, "writelines") < 0) {
        return NULL;
    }
    int any = PyObject_IsTrue(chunks);
    if (any <= 0) {
        return any < 0 ? NULL : Py_NewRef(Py_None);
    }
    int lost = COMPAT_WRITELINES_SKIPS ? Transport_is_lost(self) : 0;
    if (lost != 0) {
        return lost < 0 ? NULL : Py_NewRef(Py_None);
    }
    list = as_views(chunks);
    if (list == NULL) {
        return NULL;
    }
    lost = Transport_is_lost(self);
    if (lost != 0) {
        result = lost < 0 ? NULL : Py_NewRef(Py_None);
        goto done;
    }
    int copied = copy_views(self, list);
    if (copied <= 0) {
        result = copied < 0 ? NULL : Py_NewRef(Py_None);
        goto done;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++) {
        PyObject *bytes = PyList_GET_ITEM(list, i);
        if (PyBytes_GET_SIZE(bytes) > 0 &&
            Stream_queue(self, Py_NewRef(bytes)) < 0) {
            goto done;
        }
    }
    if (self->unsent == 0 || Stream_send_later(self) == 0) {
        result = Py_NewRef(Py_None);
    }
done:
    Py_DECREF(list);
    return result;
}

static PyObject *
StreamTransport_write(TransportObject *self, PyObject *const *args,
                      Py_ssize_t nargs, PyObject *kwnames)
{
    static const arg_spec spec = {"write", 1, 1, 1, {ARG(data)}};
    PyObject *given;

    if (parse_one_arg(self->state, &spec, args, nargs, kwnames, &given) < 0) {
        return NULL;
    }
    return write_data(self, given);
}

static PyObject *
StreamTransport_writelines(TransportObject *self, PyObject *const *args,
                           Py_ssize_t nargs, PyObject *kwnames)
{
    static const arg_spec spec = {"writelines", 1, 1, 1, {ARG(list_of_data)}};
    PyObject *given;

    if (parse_one_arg(self->state, &spec, args, nargs, kwnames, &given) < 0) {
        return NULL;
    }
    return write_chunks(self, given);
}

static PyObject *
StreamTransport_write_eof(TransportObject *self, PyObject *Py_UNUSED(ignored))
{
    if (self->closing || self->eof) {
        Py_RETURN_NONE;
    }
    if (Stream_settle(self) < 0) {
        return NULL;
    }
    self->eof = true;
    if (self->unsent == 0 && self->open && !self->closing &&
        Stream_shut_down(self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
StreamTransport_can_write_eof(TransportObject *Py_UNUSED(self),
                              PyObject *Py_UNUSED(ignored))
{
    Py_RETURN_TRUE;
}

static PyObject *
StreamTransport__make_empty_waiter(TransportObject *self,
                                   PyObject *Py_UNUSED(ignored))
{
    if (self->empty_waiter != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "Empty waiter is already set");
        return NULL;
    }
    if (Stream_settle(self) < 0) {
        return NULL;
    }
    if (self->loop == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "Transport is closed");
        return NULL;
    }
    PyObject *waiter =
        PyObject_CallMethod((PyObject *)self->loop, "create_future", NULL);
    if (waiter == NULL) {
        return NULL;
    }
    Py_XSETREF(self->empty_waiter, Py_NewRef(waiter));
    if (self->unsent == 0 && Future_resolve(self->loop, waiter, Py_None) < 0) {
        Py_CLEAR(waiter);
    }
    return waiter;
}

static PyObject *
StreamTransport__reset_empty_waiter(TransportObject *self,
                                    PyObject *Py_UNUSED(ignored))
{
    Py_CLEAR(self->empty_waiter);
    Py_RETURN_NONE;
}

PyObject *
Stream_new(const transport_origin *from)
{
    PyTypeObject *type = from->loop->state->StreamTransportType;
    TransportObject *self = (TransportObject *)type->tp_alloc(type, 0);

    if (self == NULL) {
        return NULL;
    }
    self->ops = &stream_ops;
    self->max_size = STREAM_MAX_READ;
    if (Transport_open(self, from) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

/* Turn Nagle's algorithm off, where asyncio does.  Runs Python. */
static int
set_nodelay(module_state *state, PyObject *sock, int fd)
{
    if ((PyObject *)Py_TYPE(sock) != state->socket) {
        PyObject *result = PyObject_CallOneArg(state->_set_nodelay, sock);
        Py_XDECREF(result);
        return result == NULL ? -1 : 0;
    }
    /* Family and type are enums, made at each look; of this protocol there is
       only one of each that matters. */
    PyObject *proto = PyObject_GetAttr(sock, state->str_proto);
    long number = proto == NULL ? -1 : PyLong_AsLong(proto);
    int one = 1;

    Py_XDECREF(proto);
    if (PyErr_Occurred()) {
        return -1;
    }
    if (number == IPPROTO_TCP &&
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    return 0;
}

/* _make_socket_transport(sock, protocol, waiter=None, *, extra=None,
   server=None, context=None) */
PyObject *
Loop__make_socket_transport(LoopObject *self, PyObject *const *args,
                            Py_ssize_t nargs, PyObject *kwnames)
{
    static const arg_spec spec = {"_make_socket_transport",
                                  6,
                                  3,
                                  2,
                                  {ARG(sock), ARG(protocol), ARG(waiter),
                                   ARG(extra), ARG(server), ARG(context)}};
    PyObject *given[6];

    if (parse_args(self->state, &spec, args, nargs, kwnames, given) < 0 ||
        Fds_ensure_free(self, given[0]) < 0) {
        return NULL;
    }
    module_state *state = self->state;
    PyObject *const names[] = {state->str_recv,     state->str_recv_into,
                               state->str_send,     state->str_sendmsg,
                               state->str_shutdown, NULL};
    /* What sends or receives in a way of its own must be asked. */
    if (!Socket_is_plain(state, given[0], state->SocketType, names)) {
        return call_stock_loop(state, (PyObject *)self, spec.function, args,
                               nargs, kwnames);
    }
    for (int i = 2; i < 6; i++) {
        if (given[i] == Py_None) {
            given[i] = NULL;
        }
    }
    int fd = PyObject_AsFileDescriptor(given[0]);
    if (fd < 0 || set_nodelay(state, given[0], fd) < 0) {
        return NULL;
    }
    transport_origin from = {
        .loop = self,
        .fd = fd,
        .sock = given[0],
        .protocol = given[1],
        .waiter = given[2],
        .extra = given[3],
        .server = given[4],
        .context = given[5],
        .one_context = given[5] != NULL,
    };
    return Stream_new(&from);
}

PyDoc_STRVAR(StreamTransport_doc,
"A connected stream socket; see asyncio.Transport.");
PyDoc_STRVAR(write_doc,
"write($self, /, data)\n--\n\n"
"Send bytes, a bytearray or a memoryview; what is written in one callback\n"
"goes out together when it ends.\n\n"
"Raise TypeError for anything else, RuntimeError after write_eof().");
PyDoc_STRVAR(writelines_doc,
"writelines($self, /, list_of_data)\n--\n\n"
"write() each of them.");
PyDoc_STRVAR(write_eof_doc,
"write_eof($self, /)\n--\n\n"
"End the outgoing half of the connection once what was written is sent.\n\n"
"Raise OSError if the kernel refuses.");
PyDoc_STRVAR(can_write_eof_doc,
"can_write_eof($self, /)\n--\n\n"
"Return True.");

static PyMethodDef StreamTransport_methods[] = {
    {"write", (PyCFunction)(void (*)(void))StreamTransport_write,
     METH_FASTCALL | METH_KEYWORDS, write_doc},
    {"writelines", (PyCFunction)(void (*)(void))StreamTransport_writelines,
     METH_FASTCALL | METH_KEYWORDS, writelines_doc},
    {"write_eof", (PyCFunction)StreamTransport_write_eof, METH_NOARGS,
     write_eof_doc},
    {"can_write_eof", (PyCFunction)StreamTransport_can_write_eof, METH_NOARGS,
     can_write_eof_doc},
    {"_make_empty_waiter", (PyCFunction)StreamTransport__make_empty_waiter,
     METH_NOARGS, NULL},
    {"_reset_empty_waiter", (PyCFunction)StreamTransport__reset_empty_waiter,
     METH_NOARGS, NULL},
    {NULL},
};

static PyMemberDef StreamTransport_members[] = {
    {"max_size", T_UINT, offsetof(TransportObject, max_size), 0,
     "The most bytes that one read asks for."},
    {NULL},
};

static PyType_Slot StreamTransport_slots[] = {
    {Py_tp_doc, (void *)StreamTransport_doc},
    {Py_tp_dealloc, Transport_dealloc},
    {Py_tp_traverse, Transport_traverse},
    {Py_tp_clear, Transport_clear},
    {Py_tp_methods, StreamTransport_methods},
    {Py_tp_members, StreamTransport_members},
    {0, NULL},
};

static PyType_Spec StreamTransport_spec = {
    .name = "ouroloop._core.StreamTransport",
    .basicsize = sizeof(TransportObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
        Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = StreamTransport_slots,
};

int
StreamTransport_setup_type(PyObject *module, module_state *state)
{
    PyObject *mode = NULL;
    PyObject *bases = PyTuple_Pack(1, state->TransportType);
    if (bases == NULL) {
        return -1;
    }
    PyTypeObject *type = (PyTypeObject *)PyType_FromModuleAndSpec(
        module, &StreamTransport_spec, bases);
    Py_DECREF(bases);
    state->StreamTransportType = type;
    if (type == NULL) {
        return -1;
    }
    /* What loop.start_tls() and loop.sendfile() look for. */
    mode = PyObject_GetAttrString(state->_SendfileMode, "TRY_NATIVE");
    int result = mode == NULL ||
            PyObject_SetAttrString((PyObject *)type, "_sendfile_compatible",
                                   mode) < 0 ||
            PyObject_SetAttrString((PyObject *)type, "_start_tls_compatible",
                                   Py_True) < 0
        ? -1
        : PyModule_AddType(module, type);
    Py_XDECREF(mode);
    return result;
}

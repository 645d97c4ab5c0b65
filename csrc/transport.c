/* What every transport shares: the protocol and its context, flow control,
   closing, extra info, and the base type with the methods of all that.

   Life: Transport_open() puts a new object under the loop's watch; from then
   on its open uvhandle keeps it alive.  connection_made() is called in the
   next turn, reading starts behind whoever waited for that.  connection_lost()
   is always called from the ready queue, and once: afterwards the descriptor
   is closed, and the object is only a record of what was. */
#include "ouroloop.h"

#include <arpa/inet.h>
#include <errno.h>
#include <sys/un.h>
#include <unistd.h>

/* Protocol callbacks. */

int
Transport_enter(TransportObject *self)
{
    if (compat_current_context() == self->context) {
        return 0;
    }
    return PyContext_Enter(self->context) < 0 ? -1 : 1;
}

int
Transport_leave(TransportObject *self, int entered)
{
    return entered > 0 ? PyContext_Exit(self->context) : 0;
}

PyObject *
Transport_call(TransportObject *self, PyObject *method, PyObject *arg)
{
    /* Not a bound method kept from before: protocols replace their methods
       while they run, and this costs hardly more. */
    PyObject *args[] = {NULL, self->protocol, arg};
    return PyObject_VectorcallMethod(
        method, args + 1,
        (arg == NULL ? 1 : 2) | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
}

int
Transport_log(TransportObject *self, const char *format, PyObject *detail,
              PyObject *exc)
{
    PyObject *args = NULL, *keywords = NULL, *method = NULL, *result = NULL;

    method = PyObject_GetAttrString(self->state->logger, "debug");
    args = detail == NULL ? Py_BuildValue("(sO)", format, self)
                          : Py_BuildValue("(sOO)", format, self, detail);
    if (method == NULL || args == NULL) {
        goto done;
    }
    if (exc != NULL) {
        keywords = Py_BuildValue("{s:O}", "exc_info", exc);
        if (keywords == NULL) {
            goto done;
        }
    }
    result = PyObject_Call(method, args, keywords);
done:
    Py_XDECREF(args);
    Py_XDECREF(keywords);
    Py_XDECREF(method);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* Tell the exception handler.  -1 only with an exception that must leave
   run_forever().  Runs Python. */
static int
report(TransportObject *self, PyObject *message, PyObject *exc)
{
    LoopObject *loop = (LoopObject *)Py_NewRef(self->loop);
    PyObject *result = NULL;
    PyObject *context = Py_BuildValue(
        "{s:O,s:O,s:O,s:O}", "message", message, "exception", exc, "transport",
        self, "protocol", self->protocol == NULL ? Py_None : self->protocol);

    if (context != NULL) {
        result = PyObject_CallMethodOneArg(
            (PyObject *)loop, loop->state->str_call_exception_handler,
            context);
    }
    bool fatal = result == NULL && is_fatal();
    if (result == NULL && !fatal) {
        PyErr_WriteUnraisable((PyObject *)self);
    }
    Py_XDECREF(result);
    Py_XDECREF(context);
    Py_DECREF(loop);
    return fatal ? -1 : 0;
}

/* Watching. */

static int
watch_for(TransportObject *self, int events)
{
    if (events == self->watched || !self->open) {
        return 0;
    }
    if (events == 0) {
        uv_poll_stop(&self->uv);
        self->watched = 0;
        return 0;
    }
    /* Nobody else closes a descriptor that has no socket object. */
    if (self->sock != NULL && Fds_note_armed(self->loop, self->fd) < 0) {
        return -1;
    }
    int err = uv_poll_start(&self->uv, events, self->ops->on_event);
    if (err < 0) {
        raise_uv(err);
        return -1;
    }
    self->watched = events;
    return 0;
}

static int
wanted_events(TransportObject *self)
{
    return (self->reading ? UV_READABLE : 0) |
        (self->writing ? UV_WRITABLE : 0);
}

int
Transport_watch(TransportObject *self)
{
    int wanted = wanted_events(self);

    /* Each change costs two or three system calls, and reading is often
       resumed before anything has arrived.  Transport_unwatch() drops what
       comes unwanted. */
    return watch_for(self, wanted | (self->watched & UV_READABLE));
}

int
Transport_unwatch(TransportObject *self)
{
    return watch_for(self, wanted_events(self));
}

/* Flow control. */

static int
call_flow_control(TransportObject *self, PyObject *method, const char *error)
{
    PyObject *result = Transport_call(self, method, NULL); /* any change */

    if (result != NULL) {
        Py_DECREF(result);
        return 0;
    }
    if (is_fatal() || self->loop == NULL) {
        return -1;
    }
    PyObject *exc = PyErr_GetRaisedException();
    PyObject *message = PyUnicode_FromString(error);
    int reported = message == NULL ? -1 : report(self, message, exc);
    Py_XDECREF(message);
    Py_DECREF(exc);
    return reported;
}

int
Transport_maybe_pause(TransportObject *self)
{
    if (self->unsent <= self->high_water || self->protocol_paused ||
        self->protocol == NULL) {
        return 0;
    }
    self->protocol_paused = true;
    return call_flow_control(self, self->state->str_pause_writing,
                             "protocol.pause_writing() failed");
}

int
Transport_maybe_resume(TransportObject *self)
{
    if (!self->protocol_paused || self->unsent > self->low_water ||
        self->protocol == NULL) {
        return 0;
    }
    self->protocol_paused = false;
    return call_flow_control(self, self->state->str_resume_writing,
                             "protocol.resume_writing() failed");
}

static int
set_limits(TransportObject *self, PyObject *high_object, PyObject *low_object)
{
    enum { HIGH_WATER = 64 * 1024 };
    Py_ssize_t high = -1, low = -1;

    if (high_object != Py_None) {
        high = PyNumber_AsSsize_t(high_object, NULL);
        if (high == -1 && PyErr_Occurred()) {
            return -1;
        }
    }
    if (low_object != Py_None) {
        low = PyNumber_AsSsize_t(low_object, NULL);
        if (low == -1 && PyErr_Occurred()) {
            return -1;
        }
    }
    if (high_object == Py_None) {
        high = low_object == Py_None   ? HIGH_WATER
            : low > PY_SSIZE_T_MAX / 4 ? PY_SSIZE_T_MAX
                                       : 4 * low;
    }
    if (low_object == Py_None) {
        /* Floors, as Python's //. */
        low = high >= 0 ? high / 4 : -1;
    }
    if (!(high >= low && low >= 0)) {
        PyErr_Format(PyExc_ValueError,
                     "high (%zd) must be >= low (%zd) must be >= 0", high,
                     low);
        return -1;
    }
    self->high_water = (size_t)high;
    self->low_water = (size_t)low;
    return 0;
}

/* Closing. */

/* Have connection_lost(exc) called in the next turn. */
static int
schedule_lost(TransportObject *self, PyObject *exc)
{
    LoopObject *loop = self->loop;
    int result = -1;

    self->conn_lost++;
    PyObject *method = PyObject_GetAttr(
        (PyObject *)self, self->state->str__call_connection_lost);
    HandleObject *handle = method == NULL
        ? NULL
        : Handle_new(loop, method, &exc, 1, self->context);
    if (handle != NULL) {
        result = Ready_push(&loop->ready, READY_HANDLE, (PyObject *)handle,
                            NULL, NULL);
    }
    Py_XDECREF(method);
    Py_XDECREF(handle);
    return result;
}

int
Transport_drained(TransportObject *self)
{
    return self->closing && self->conn_lost == 0 && self->loop != NULL
        ? schedule_lost(self, Py_None)
        : 0;
}

int
Transport_close(TransportObject *self)
{
    if (self->closing || self->loop == NULL) {
        return 0;
    }
    /* Runs Python; an error of the connection closes it. */
    if (self->ops->flush(self) < 0) {
        return -1;
    }
    if (self->closing || self->loop == NULL) {
        return 0;
    }
    self->closing = true;
    self->reading = false;
    return self->unsent == 0 ? schedule_lost(self, Py_None) : 0;
}

int
Transport_force_close(TransportObject *self, PyObject *exc)
{
    if (self->conn_lost || self->loop == NULL) {
        return 0;
    }
    self->closing = true;
    self->reading = self->writing = false;
    self->ops->discard(self);
    return schedule_lost(self, exc);
}

/* What was written before an abort() is on its way on stock asyncio. */
static int
flush_and_force_close(TransportObject *self, PyObject *exc)
{
    if (self->conn_lost || self->loop == NULL) {
        return 0;
    }
    return self->ops->flush(self) < 0 ? -1 : Transport_force_close(self, exc);
}

static int
fatal_error(TransportObject *self, PyObject *exc, PyObject *message)
{
    int result;

    if (self->loop == NULL) {
        return 0;
    }
    if (!PyErr_GivenExceptionMatches(exc, PyExc_OSError)) {
        result = report(self, message, exc);
    }
    else {
        result = self->loop->debug
            ? Transport_log(self, "%r: %s", message, exc)
            : 0;
    }
    PyObject *raised = result < 0 ? PyErr_GetRaisedException() : NULL;
    if (Transport_force_close(self, exc) < 0) {
        Py_XDECREF(raised);
        return -1;
    }
    if (raised != NULL) {
        PyErr_SetRaisedException(raised);
    }
    return result;
}

int
Transport_fatal_error(TransportObject *self, const char *message)
{
    if (is_fatal()) {
        return -1;
    }
    PyObject *exc = PyErr_GetRaisedException();
    PyObject *text = PyUnicode_FromString(message);
    int result = text == NULL ? -1 : fatal_error(self, exc, text);

    Py_XDECREF(text);
    Py_DECREF(exc);
    return result;
}

static void
on_closed(uv_handle_t *uv)
{
    TransportObject *self = CONTAINER_OF(uv, TransportObject, uv);

    Loop_enter(CONTAINER_OF(uv->loop, LoopObject, uv));
    Py_DECREF(self);
}

/* Take the descriptor from libuv and out of the table. */
static void
stop_using(TransportObject *self)
{
    LoopObject *loop = CONTAINER_OF(self->uv.loop, LoopObject, uv);

    self->open = false;
    self->watched = 0;
    loop->fds[self->fd].transport = NULL;
    uv_close((uv_handle_t *)&self->uv, on_closed);
}

/* Close the descriptor.  Runs Python. */
static void
release(TransportObject *self)
{
    if (!self->open) {
        return;
    }
    if (self->local.any.sa_family == AF_UNSPEC &&
        self->peer.any.sa_family != AF_UNSPEC) {
        /* The last chance to learn it. */
        socklen_t size = sizeof(self->local);
        (void)getsockname(self->fd, &self->local.any, &size);
    }
    /* In this order: libuv takes the descriptor out of the epoll set, which
       must not be somebody else's by then. */
    stop_using(self);
    if (self->sock == NULL) {
        close(self->fd);
        return;
    }
    PyObject *result = PyObject_CallMethod(self->sock, "close", NULL);
    if (result == NULL) {
        PyErr_WriteUnraisable((PyObject *)self);
    }
    Py_XDECREF(result);
}

/* server._attach() or _detach(), which take the transport since 3.13. */
static int
tell_server(TransportObject *self, PyObject *server, const char *method)
{
    PyObject *result = self->state->server_keeps_clients
        ? PyObject_CallMethod(server, method, "O", self)
        : PyObject_CallMethod(server, method, NULL);

    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

int
Transport_fail_waiter(PyObject *waiter, PyObject *exc)
{
    PyObject *done = PyObject_CallMethod(waiter, "done", NULL), *result = NULL;
    int truth = done == NULL ? -1 : PyObject_IsTrue(done);

    if (truth == 0) {
        result = PyObject_CallMethod(waiter, "set_exception", "O", exc);
    }
    Py_XDECREF(done);
    Py_XDECREF(result);
    return truth > 0 || result != NULL ? 0 : -1;
}

static int
end_empty_waiter(TransportObject *self)
{
    PyObject *waiter = self->empty_waiter;

    if (waiter == NULL) {
        return 0;
    }
    self->empty_waiter = NULL;
    PyObject *exc = PyObject_CallFunction(PyExc_ConnectionError, "s",
                                          "Connection is closed by peer");
    int result = exc == NULL ? -1 : Transport_fail_waiter(waiter, exc);
    Py_XDECREF(exc);
    Py_DECREF(waiter);
    return result;
}

static PyObject *
Transport__call_connection_lost(TransportObject *self, PyObject *exc)
{
    PyObject *raised = NULL;

    if (self->loop == NULL) {
        Py_RETURN_NONE;  // The loop was closed before.
    }
    if (self->protocol_connected && self->protocol != NULL) {
        PyObject *result =
            Transport_call(self, self->state->str_connection_lost, exc);
        if (result == NULL) {
            raised = PyErr_GetRaisedException();
        }
        Py_XDECREF(result);
    }
    PyObject *server = self->server;
    self->server = NULL;
    release(self);
    Py_CLEAR(self->protocol);
    if (server != NULL && tell_server(self, server, "_detach") < 0 &&
        raised == NULL) {
        raised = PyErr_GetRaisedException();
    }
    if (end_empty_waiter(self) < 0 && raised == NULL) {
        raised = PyErr_GetRaisedException();
    }
    Py_CLEAR(self->loop);
    Py_XDECREF(server);
    if (raised != NULL) {
        PyErr_SetRaisedException(raised);
        return NULL;
    }
    Py_RETURN_NONE;
}

void
Transport_abandon(TransportObject *self)
{
    Py_INCREF(self);
    if (PyErr_ResourceWarning((PyObject *)self, 1, "unclosed transport %R",
                              self) < 0) {
        PyErr_WriteUnraisable((PyObject *)self);
    }
    self->closing = true;
    self->conn_lost++;
    self->reading = self->writing = false;
    self->ops->discard(self);
    release(self);
    Py_CLEAR(self->protocol);
    Py_CLEAR(self->server);
    Py_CLEAR(self->loop);
    Py_DECREF(self);
}

/* Addresses and other extra info. */

/* As the socket module shows it.  NULL without an exception for a family that
   is not known here. */
PyObject *
Address_object(const struct sockaddr *address, socklen_t size)
{
    char text[INET6_ADDRSTRLEN];

    switch (address->sa_family) {
    case AF_INET: {
        const struct sockaddr_in *inet = (const struct sockaddr_in *)address;
        inet_ntop(AF_INET, &inet->sin_addr, text, sizeof(text));
        return Py_BuildValue("(si)", text, (int)ntohs(inet->sin_port));
    }
    case AF_INET6: {
        const struct sockaddr_in6 *inet6 =
            (const struct sockaddr_in6 *)address;
        inet_ntop(AF_INET6, &inet6->sin6_addr, text, sizeof(text));
        return Py_BuildValue("(siII)", text, (int)ntohs(inet6->sin6_port),
                             (unsigned)ntohl(inet6->sin6_flowinfo),
                             (unsigned)inet6->sin6_scope_id);
    }
    case AF_UNIX: {
        const struct sockaddr_un *un = (const struct sockaddr_un *)address;
        size_t length = size > offsetof(struct sockaddr_un, sun_path)
            ? size - offsetof(struct sockaddr_un, sun_path)
            : 0;
        if (length > 0 && un->sun_path[0] == '\0') {
            /* Linux's abstract names. */
            return PyBytes_FromStringAndSize(un->sun_path, (Py_ssize_t)length);
        }
        return PyUnicode_DecodeFSDefaultAndSize(
            un->sun_path, (Py_ssize_t)strnlen(un->sun_path, length));
    }
    }
    return NULL;
}

static PyObject *
extra_dict(TransportObject *self)
{
    if (self->extra == NULL) {
        self->extra = PyDict_New();
    }
    return self->extra;
}

static int
set_extra(TransportObject *self, PyObject *name, PyObject *value)
{
    PyObject *extra = extra_dict(self);
    return extra == NULL ? -1 : PyDict_SetItem(extra, name, value);
}

/* Internet addresses are kept as the kernel gives them, half the size of the
   objects, which few ask for.  Others become objects at once. */
static int
keep_address(TransportObject *self, inet_address *slot, PyObject *name,
             const struct sockaddr *address, socklen_t size)
{
    if (address->sa_family == AF_INET || address->sa_family == AF_INET6) {
        memcpy(slot, address,
               size < sizeof(*slot) ? size : (socklen_t)sizeof(*slot));
        return 0;
    }
    PyObject *value = Address_object(address, size);
    if (value == NULL && !PyErr_Occurred()) {
        PyObject *sock = Transport_get_socket(self);
        value = sock == NULL
            ? NULL
            : PyObject_CallMethod(sock,
                                  name == self->state->str_peername
                                      ? "getpeername"
                                      : "getsockname",
                                  NULL);
        Py_XDECREF(sock);
    }
    int result = value == NULL ? -1 : set_extra(self, name, value);
    Py_XDECREF(value);
    return result;
}

static int
learn_addresses(TransportObject *self, const transport_origin *from)
{
    struct sockaddr_storage storage;
    struct sockaddr *address = (struct sockaddr *)&storage;
    socklen_t size = sizeof(storage);
    module_state *state = self->state;

    if (from->peer != NULL) {
        if (keep_address(self, &self->peer, state->str_peername, from->peer,
                         from->peer_size) < 0) {
            return -1;
        }
        if (self->peer.any.sa_family != AF_UNSPEC) {
            return 0;  // The local one does not change: see release().
        }
    }
    else if (getpeername(self->fd, address, &size) == 0 &&
             keep_address(self, &self->peer, state->str_peername, address,
                          size) < 0) {
        return -1;
    }
    size = sizeof(storage);
    if (getsockname(self->fd, address, &size) == 0 &&
        keep_address(self, &self->local, state->str_sockname, address, size) <
            0) {
        return -1;
    }
    return 0;
}

PyObject *
Transport_get_socket(TransportObject *self)
{
    if (self->sock != NULL) {
        return Py_NewRef(self->sock);
    }
    PyObject *result = NULL, *sock = NULL;
    PyObject *empty = PyTuple_New(0);
    /* Of a closed connection that nobody had asked: a closed one. */
    PyObject *keywords = self->open
        ? Py_BuildValue("{s:i}", "fileno", self->fd)
        : Py_BuildValue("{s:i}", "family", (int)self->peer.any.sa_family);
    if (empty != NULL && keywords != NULL) {
        sock = PyObject_Call(self->state->socket, empty, keywords);
    }
    if (sock != NULL) {
        result = self->open ? PyObject_CallMethod(sock, "setblocking", "i", 0)
                            : PyObject_CallMethod(sock, "close", NULL);
    }
    Py_XDECREF(empty);
    Py_XDECREF(keywords);
    if (result == NULL) {
        Py_XDECREF(sock);
        return NULL;
    }
    Py_DECREF(result);
    /* It owns the descriptor from now on. */
    self->sock = sock;
    return Py_NewRef(sock);
}

/* What is only made when asked for.  NULL without an exception for any other
   name. */
static PyObject *
make_extra_info(TransportObject *self, PyObject *name)
{
    module_state *state = self->state;
    PyObject *value = NULL;

    if (!PyUnicode_Check(name)) {
        return NULL;
    }
    if (PyUnicode_Compare(name, state->str_socket) == 0) {
        PyObject *sock = Transport_get_socket(self);
        if (sock != NULL) {
            value = PyObject_CallOneArg(state->TransportSocket, sock);
            Py_DECREF(sock);
        }
    }
    else if (PyUnicode_Compare(name, state->str_peername) == 0) {
        value = Address_object(&self->peer.any, sizeof(self->peer));
    }
    else if (PyUnicode_Compare(name, state->str_sockname) == 0) {
        if (self->open && self->local.any.sa_family == AF_UNSPEC &&
            self->peer.any.sa_family != AF_UNSPEC) {
            socklen_t size = sizeof(self->local);
            (void)getsockname(self->fd, &self->local.any, &size);
        }
        value = Address_object(&self->local.any, sizeof(self->local));
    }
    else {
        return NULL;
    }
    if (value == NULL && !PyErr_Occurred()) {
        value = Py_NewRef(Py_None);
    }
    if (value != NULL && set_extra(self, name, value) < 0) {
        Py_CLEAR(value);
    }
    return value;
}

static PyObject *
get_extra_info(TransportObject *self, PyObject *name)
{
    if (self->extra != NULL) {
        PyObject *value = PyDict_GetItemWithError(self->extra, name);
        if (value != NULL || PyErr_Occurred()) {
            return Py_XNewRef(value);
        }
    }
    return make_extra_info(self, name);
}

static PyObject *
Transport_get_extra_info(TransportObject *self, PyObject *const *args,
                         Py_ssize_t nargs, PyObject *kwnames)
{
    static const arg_spec spec = {
        "get_extra_info", 2, 2, 1, {ARG(name), ARG(default)}};
    PyObject *given[2];

    if (parse_args(self->state, &spec, args, nargs, kwnames, given) < 0) {
        return NULL;
    }
    PyObject *value = get_extra_info(self, given[0]);
    if (value == NULL && !PyErr_Occurred()) {
        value = Py_NewRef(given[1] == NULL ? Py_None : given[1]);
    }
    return value;
}

/* Opening. */

int
Transport_set_protocol(TransportObject *self, PyObject *protocol)
{
    int buffered =
        PyObject_IsInstance(protocol, self->state->BufferedProtocol);

    if (buffered < 0) {
        return -1;
    }
    self->buffered = buffered;
    self->protocol_connected = true;
    Py_XSETREF(self->protocol, Py_NewRef(protocol));
    return 0;
}

static void
start_reading(PyObject *object)
{
    TransportObject *self = (TransportObject *)object;

    if (self->loop == NULL || self->closing || self->paused) {
        return;
    }
    self->reading = true;
    if (Transport_watch(self) < 0) {
        if (Transport_fatal_error(self, "Cannot watch the connection") < 0) {
            Loop_fail(self->loop);
        }
    }
}

/* connection_made() was called. */
static void
connected(PyObject *object)
{
    TransportObject *self = (TransportObject *)object;
    LoopObject *loop = self->loop;
    PyObject *waiter = self->waiter;

    if (loop == NULL) {
        return;
    }
    self->waiter = NULL;
    if ((waiter != NULL && Future_resolve(loop, waiter, Py_None) < 0) ||
        /* Input is handed on from the poll, before the next batch: it would
           overtake the task that the waiter has just woken, were it read
           before that task has run. */
        Ready_push_native(&loop->ready, start_reading, object) < 0) {
        Loop_report(loop, "Cannot start to read", "transport", object);
    }
    Py_XDECREF(waiter);
}

static int
queue_connection_made(TransportObject *self)
{
    LoopObject *loop = self->loop;
    PyObject *argument = (PyObject *)self;
    PyObject *method =
        PyObject_GetAttr(self->protocol, self->state->str_connection_made);
    HandleObject *handle = method == NULL
        ? NULL
        : Handle_new(loop, method, &argument, 1, self->context);
    int result = -1;

    if (handle != NULL &&
        Ready_push(&loop->ready, READY_HANDLE, (PyObject *)handle, NULL,
                   NULL) == 0) {
        result = Ready_push_native(&loop->ready, connected, argument);
    }
    Py_XDECREF(method);
    Py_XDECREF(handle);
    return result;
}

/* Put the descriptor under the loop's watch. */
static int
start_using(TransportObject *self, LoopObject *loop, int fd)
{
    /* A callback of add_reader() left over from before, perhaps for another
       descriptor of this number.  Runs Python. */
    Fds_forget(loop, fd);
    fd_entry *entry = Fds_reserve(loop, fd);
    if (entry == NULL) {
        return -1;
    }
    if (entry->transport != NULL) {
        PyErr_Format(PyExc_RuntimeError,
                     "File descriptor %d is used by transport %R", fd,
                     entry->transport);
        return -1;
    }
    int err = uv_poll_init(&loop->uv, &self->uv, fd);
    if (err < 0) {
        raise_uv(err);
        return -1;
    }
    entry->transport = self;
    self->fd = fd;
    self->open = true;
    Py_INCREF(self);
    return 0;
}

int
Transport_open(TransportObject *self, const transport_origin *from)
{
    LoopObject *loop = from->loop;

    self->state = loop->state;
    self->loop = (LoopObject *)Py_NewRef(loop);
    self->fd = from->fd;
    self->sock = Py_XNewRef(from->sock);
    self->waiter = Py_XNewRef(from->waiter);
    self->extra = Py_XNewRef(from->extra);
    self->context = from->context != NULL ? Py_NewRef(from->context)
                                          : PyContext_CopyCurrent();
    if (self->context == NULL || set_limits(self, Py_None, Py_None) < 0 ||
        start_using(self, loop, from->fd) < 0) {
        return -1;
    }
    if (learn_addresses(self, from) < 0 ||
        Transport_set_protocol(self, from->protocol) < 0) {
        goto error;
    }
    if (from->server != NULL) {
        if (tell_server(self, from->server, "_attach") < 0) {
            goto error;
        }
        self->server = Py_NewRef(from->server);
    }
    if (queue_connection_made(self) < 0) {
        goto error;
    }
    return 0;
error:
    /* The caller keeps the descriptor. */
    stop_using(self);
    Py_CLEAR(self->loop);
    return -1;
}

/* Methods. */

static PyObject *
none_unless(int failed)
{
    if (failed < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
Transport_close_method(TransportObject *self, PyObject *Py_UNUSED(ignored))
{
    return none_unless(Transport_close(self));
}

static PyObject *
Transport_abort(TransportObject *self, PyObject *Py_UNUSED(ignored))
{
    return none_unless(flush_and_force_close(self, Py_None));
}

static PyObject *
Transport__force_close(TransportObject *self, PyObject *exc)
{
    return none_unless(flush_and_force_close(self, exc));
}

static PyObject *
Transport__fatal_error(TransportObject *self, PyObject *const *args,
                       Py_ssize_t nargs, PyObject *kwnames)
{
    static const arg_spec spec = {
        "_fatal_error", 2, 2, 1, {ARG(exc), ARG(message)}};
    PyObject *given[2], *message;

    if (parse_args(self->state, &spec, args, nargs, kwnames, given) < 0) {
        return NULL;
    }
    message = given[1] != NULL
        ? Py_NewRef(given[1])
        : PyUnicode_FromString("Fatal error on transport");
    int failed = message == NULL || self->ops->flush(self) < 0
        ? -1
        : fatal_error(self, given[0], message);
    Py_XDECREF(message);
    return none_unless(failed);
}

static PyObject *
Transport_is_closing(TransportObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(self->closing);
}

static PyObject *
Transport_is_reading(TransportObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(!self->closing && !self->paused);
}

static PyObject *
Transport_pause_reading(TransportObject *self, PyObject *Py_UNUSED(ignored))
{
    if (self->closing || self->paused) {
        Py_RETURN_NONE;
    }
    self->paused = true;
    self->reading = false;
    return none_unless(
        self->loop->debug
            ? Transport_log(self, "%r pauses reading", NULL, NULL)
            : 0);
}

static PyObject *
Transport_resume_reading(TransportObject *self, PyObject *Py_UNUSED(ignored))
{
    if (self->closing || !self->paused) {
        Py_RETURN_NONE;
    }
    self->paused = false;
    self->reading = true;
    if (Transport_watch(self) < 0) {
        return NULL;
    }
    return none_unless(
        self->loop->debug
            ? Transport_log(self, "%r resumes reading", NULL, NULL)
            : 0);
}

static PyObject *
Transport_set_protocol_method(TransportObject *self, PyObject *protocol)
{
    /* What was written belongs to the old one's flow control. */
    if (self->ops->flush(self) < 0) {
        return NULL;
    }
    return none_unless(Transport_set_protocol(self, protocol));
}

static PyObject *
Transport_get_protocol(TransportObject *self, PyObject *Py_UNUSED(ignored))
{
    return Py_NewRef(self->protocol == NULL ? Py_None : self->protocol);
}

static PyObject *
Transport_set_write_buffer_limits(TransportObject *self, PyObject *const *args,
                                  Py_ssize_t nargs, PyObject *kwnames)
{
    static const arg_spec spec = {
        "set_write_buffer_limits", 2, 2, 0, {ARG(high), ARG(low)}};
    PyObject *given[2];

    if (parse_args(self->state, &spec, args, nargs, kwnames, given) < 0 ||
        self->ops->flush(self) < 0 ||
        set_limits(self, given[0] == NULL ? Py_None : given[0],
                   given[1] == NULL ? Py_None : given[1]) < 0) {
        return NULL;
    }
    return none_unless(Transport_maybe_pause(self));
}

static PyObject *
Transport_get_write_buffer_limits(TransportObject *self,
                                  PyObject *Py_UNUSED(ignored))
{
    return Py_BuildValue("(nn)", (Py_ssize_t)self->low_water,
                         (Py_ssize_t)self->high_water);
}

static PyObject *
Transport_get_write_buffer_size(TransportObject *self,
                                PyObject *Py_UNUSED(ignored))
{
    if (self->ops->flush(self) < 0) {
        return NULL;
    }
    return PyLong_FromSize_t(self->unsent);
}

static PyObject *
Transport_repr(TransportObject *self)
{
    const char *dot = strrchr(Py_TYPE(self)->tp_name, '.');
    const char *name = dot == NULL ? Py_TYPE(self)->tp_name : dot + 1;
    const char *state = !self->open ? " closed"
        : self->closing             ? " closing"
                                    : "";

    if (self->loop == NULL || self->loop->closed) {
        return PyUnicode_FromFormat("<%s%s fd=%d>", name, state, self->fd);
    }
    return PyUnicode_FromFormat(
        "<%s%s fd=%d read=%s write=<%s, bufsize=%zu>>", name, state, self->fd,
        self->reading ? "polling" : "idle", self->writing ? "polling" : "idle",
        self->unsent);
}

static PyObject *
Transport_get__sock(TransportObject *self, void *Py_UNUSED(closure))
{
    if (!self->open) {
        Py_RETURN_NONE;
    }
    return Transport_get_socket(self);
}

static PyObject *
Transport_get__extra(TransportObject *self, void *Py_UNUSED(closure))
{
    module_state *state = self->state;
    PyObject *names[] = {state->str_socket, state->str_sockname,
                         state->str_peername};

    for (size_t i = 0; i < Py_ARRAY_LENGTH(names); i++) {
        PyObject *value = get_extra_info(self, names[i]);
        if (value == NULL) {
            return NULL;
        }
        Py_DECREF(value);
    }
    return Py_NewRef(extra_dict(self));
}

static PyObject *
Transport_get__protocol(TransportObject *self, void *Py_UNUSED(closure))
{
    return Transport_get_protocol(self, NULL);
}

static int
Transport_set__protocol(TransportObject *self, PyObject *protocol,
                        void *Py_UNUSED(closure))
{
    return Transport_set_protocol(self, protocol == NULL ? Py_None : protocol);
}

static PyObject *
Transport_get__loop(TransportObject *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self->loop == NULL ? Py_None : (PyObject *)self->loop);
}

/* Life. */

int
Transport_traverse(TransportObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->extra);
    Py_VISIT(self->dict);
    Py_VISIT(self->loop);
    Py_VISIT(self->protocol);
    Py_VISIT(self->context);
    Py_VISIT(self->sock);
    Py_VISIT(self->server);
    Py_VISIT(self->waiter);
    Py_VISIT(self->empty_waiter);
    return 0;
}

int
Transport_clear(TransportObject *self)
{
    Py_CLEAR(self->extra);
    Py_CLEAR(self->dict);
    Py_CLEAR(self->loop);
    Py_CLEAR(self->protocol);
    Py_CLEAR(self->sock);
    Py_CLEAR(self->server);
    Py_CLEAR(self->waiter);
    Py_CLEAR(self->empty_waiter);
    return 0;
}

void
Transport_dealloc(TransportObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs((PyObject *)self);
    }
    if (self->ops != NULL) {
        self->ops->discard(self);
    }
    (void)Transport_clear(self);
    Py_CLEAR(self->context);
    type->tp_free(self);
    Py_DECREF(type);
}

PyDoc_STRVAR(Transport_doc,
"What the transports of the loop share; see asyncio.BaseTransport.");
PyDoc_STRVAR(close_doc,
"close($self, /)\n--\n\n"
"Close the transport once what was written is sent.\n\n"
"Nothing more is received; connection_lost(None) is called at the end.");
PyDoc_STRVAR(abort_doc,
"abort($self, /)\n--\n\n"
"Close the transport at once; what the kernel has not taken yet is lost.\n\n"
"connection_lost(None) is called in the loop's next turn.");
PyDoc_STRVAR(is_closing_doc,
"is_closing($self, /)\n--\n\n"
"Return True if the transport is closing or closed.");
PyDoc_STRVAR(is_reading_doc,
"is_reading($self, /)\n--\n\n"
"Return True if the transport hands input on to the protocol.");
PyDoc_STRVAR(pause_reading_doc,
"pause_reading($self, /)\n--\n\n"
"Hand no input on to the protocol until resume_reading().");
PyDoc_STRVAR(resume_reading_doc,
"resume_reading($self, /)\n--\n\n"
"Undo pause_reading().");
PyDoc_STRVAR(set_protocol_doc,
"set_protocol($self, protocol, /)\n--\n\n"
"Use another protocol from now on.");
PyDoc_STRVAR(get_protocol_doc,
"get_protocol($self, /)\n--\n\n"
"Return the protocol; None once connection_lost() was called.");
PyDoc_STRVAR(get_extra_info_doc,
"get_extra_info($self, /, name, default=None)\n--\n\n"
"Return what is known under the name, else default.\n\n"
"socket: a TransportSocket.  sockname, peername: addresses, None where there\n"
"is none.");
PyDoc_STRVAR(set_write_buffer_limits_doc,
"set_write_buffer_limits($self, /, high=None, low=None)\n--\n\n"
"Set when the protocol's pause_writing() and resume_writing() are called.\n\n"
"high: with more bytes than this unsent, it is paused (None: 64 KiB, or four\n"
"times low).  low: with this many or fewer, resumed (None: a quarter of\n"
"high).  Raise ValueError unless high >= low >= 0.");
PyDoc_STRVAR(get_write_buffer_limits_doc,
"get_write_buffer_limits($self, /)\n--\n\n"
"Return (low, high) in bytes.");
PyDoc_STRVAR(get_write_buffer_size_doc,
"get_write_buffer_size($self, /)\n--\n\n"
"Return the number of bytes that the kernel has not taken yet.");

#define FAST(function) ((PyCFunction)(void (*)(void))(function))
static PyMethodDef Transport_methods[] = {
    {"close", (PyCFunction)Transport_close_method, METH_NOARGS, close_doc},
    {"abort", (PyCFunction)Transport_abort, METH_NOARGS, abort_doc},
    {"is_closing", (PyCFunction)Transport_is_closing, METH_NOARGS,
     is_closing_doc},
    {"is_reading", (PyCFunction)Transport_is_reading, METH_NOARGS,
     is_reading_doc},
    {"pause_reading", (PyCFunction)Transport_pause_reading, METH_NOARGS,
     pause_reading_doc},
    {"resume_reading", (PyCFunction)Transport_resume_reading, METH_NOARGS,
     resume_reading_doc},
    {"set_protocol", (PyCFunction)Transport_set_protocol_method, METH_O,
     set_protocol_doc},
    {"get_protocol", (PyCFunction)Transport_get_protocol, METH_NOARGS,
     get_protocol_doc},
    {"get_extra_info", FAST(Transport_get_extra_info),
     METH_FASTCALL | METH_KEYWORDS, get_extra_info_doc},
    {"set_write_buffer_limits", FAST(Transport_set_write_buffer_limits),
     METH_FASTCALL | METH_KEYWORDS, set_write_buffer_limits_doc},
    {"get_write_buffer_limits", (PyCFunction)Transport_get_write_buffer_limits,
     METH_NOARGS, get_write_buffer_limits_doc},
    {"get_write_buffer_size", (PyCFunction)Transport_get_write_buffer_size,
     METH_NOARGS, get_write_buffer_size_doc},
    {"_force_close", (PyCFunction)Transport__force_close, METH_O, NULL},
    {"_fatal_error", FAST(Transport__fatal_error),
     METH_FASTCALL | METH_KEYWORDS, NULL},
    {"_call_connection_lost", (PyCFunction)Transport__call_connection_lost,
     METH_O, NULL},
    {NULL},
};

static PyMemberDef Transport_members[] = {
    {"__dictoffset__", T_PYSSIZET, offsetof(TransportObject, dict), READONLY},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(TransportObject, weakrefs),
     READONLY},
    {"_context", T_OBJECT, offsetof(TransportObject, context), READONLY},
    {"_server", T_OBJECT, offsetof(TransportObject, server), READONLY},
    {"_empty_waiter", T_OBJECT, offsetof(TransportObject, empty_waiter),
     READONLY},
    {"_sock_fd", T_INT, offsetof(TransportObject, fd), READONLY},
    {"_conn_lost", T_INT, offsetof(TransportObject, conn_lost), READONLY},
    {"_closing", T_BOOL, offsetof(TransportObject, closing), READONLY},
    {"_paused", T_BOOL, offsetof(TransportObject, paused), READONLY},
    {"_eof", T_BOOL, offsetof(TransportObject, eof), READONLY},
    {"_protocol_paused", T_BOOL, offsetof(TransportObject, protocol_paused),
     READONLY},
    {"_high_water", T_PYSSIZET, offsetof(TransportObject, high_water),
     READONLY},
    {"_low_water", T_PYSSIZET, offsetof(TransportObject, low_water), READONLY},
    {"_lent", T_BOOL, offsetof(TransportObject, lent), 0},
    {NULL},
};

static PyGetSetDef Transport_getset[] = {
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {"_loop", (getter)Transport_get__loop, NULL, NULL, NULL},
    {"_protocol", (getter)Transport_get__protocol,
     (setter)Transport_set__protocol, NULL, NULL},
    {"_sock", (getter)Transport_get__sock, NULL, NULL, NULL},
    {"_extra", (getter)Transport_get__extra, NULL, NULL, NULL},
    {NULL},
};

static PyType_Slot Transport_slots[] = {
    {Py_tp_doc, (void *)Transport_doc},
    {Py_tp_dealloc, Transport_dealloc},
    {Py_tp_traverse, Transport_traverse},
    {Py_tp_clear, Transport_clear},
    {Py_tp_repr, Transport_repr},
    {Py_tp_methods, Transport_methods},
    {Py_tp_members, Transport_members},
    {Py_tp_getset, Transport_getset},
    {0, NULL},
};

static PyType_Spec Transport_spec = {
    .name = "ouroloop._core.Transport",
    .basicsize = sizeof(TransportObject),
    /* Not immutable, as its base is not. */
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC |
        Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = Transport_slots,
};

/* Since 3.13 (some 3.12 too) a Server keeps its clients. */
static int
find_server_keeps_clients(module_state *state)
{
    PyObject *attach = PyObject_GetAttrString(state->Server, "_attach");
    PyObject *code =
        attach == NULL ? NULL : PyObject_GetAttrString(attach, "__code__");
    PyObject *count =
        code == NULL ? NULL : PyObject_GetAttrString(code, "co_argcount");
    long arguments = count == NULL ? -1 : PyLong_AsLong(count);

    state->server_keeps_clients = arguments > 1;
    Py_XDECREF(attach);
    Py_XDECREF(code);
    Py_XDECREF(count);
    return PyErr_Occurred() ? -1 : 0;
}

int
Transport_setup_type(PyObject *module, module_state *state)
{
    PyTypeObject *base = (PyTypeObject *)state->BaseTransport;

    /* Our struct begins with its only field, the slot `_extra`. */
    if (base->tp_basicsize != offsetof(TransportObject, dict)) {
        PyErr_SetString(PyExc_SystemError,
                        "ouroloop does not know this asyncio.BaseTransport");
        return -1;
    }
    if (find_server_keeps_clients(state) < 0) {
        return -1;
    }
    PyObject *bases = PyTuple_Pack(1, base);
    if (bases == NULL) {
        return -1;
    }
    state->TransportType = (PyTypeObject *)PyType_FromModuleAndSpec(
        module, &Transport_spec, bases);
    Py_DECREF(bases);
    return state->TransportType == NULL ? -1 : 0;
}

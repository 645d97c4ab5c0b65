/* What every transport shares: the protocol and its context, the events that
   are watched for, flow control, opening and closing.

   Life: Transport_open() puts a new object under the loop's watch; from then
   on the loop's table of descriptors keeps it alive while it waits for
   anything.  connection_made() is called in the next turn, reading starts
   behind whoever waited for that.  connection_lost() is always called from the
   ready queue, and once: afterwards the descriptor is closed, and the object
   is only a record of what was. */
#include "ouroloop.h"

#include <math.h>
#include <unistd.h>

/* Protocol callbacks. */

int
context_enter(PyObject *context)
{
    if (compat_current_context() == context) {
        return 0;
    }
    return PyContext_Enter(context) < 0 ? -1 : 1;
}

int
context_leave(PyObject *context, int entered)
{
    return entered > 0 ? PyContext_Exit(context) : 0;
}

PyObject *
Transport_call(TransportObject *self, PyObject *method, PyObject *arg)
{
    /* Not a bound method kept from before: protocols replace their methods
       while they run, and this costs hardly more. */
    PyObject *args[] = {NULL, Py_NewRef(self->protocol), arg};
    PyObject *result = PyObject_VectorcallMethod(
        method, args + 1,
        (arg == NULL ? 1 : 2) | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);

    /* It may have been replaced, in its own method. */
    Py_DECREF(args[1]);
    return result;
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
    if (self->unwatchable) {
        raise_uv(UV_EPERM);
        return -1;
    }
    fd_watcher *watcher = self->home->fds[self->fd].watcher;
    if (watcher != NULL) {
        int before = self->watched;
        self->watched = events;
        if (Watcher_update(watcher) < 0) {
            self->watched = before;
            return -1;
        }
        return 0;
    }
    if (events == 0) {
        uv_poll_stop(self->uv);
        self->watched = 0;
        return 0;
    }
    if (Fds_note_armed(self->loop, self->fd) < 0) {
        return -1;
    }
    int err = uv_poll_start(self->uv, events, self->ops->on_event);
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
    PyObject *result = Transport_call(self, method, NULL);

    if (result != NULL) {
        Py_DECREF(result);
        return 0;
    }
    if (is_fatal() || self->loop == NULL) {
        return -1;
    }
    handled_exception outer;
    PyObject *exc = PyErr_GetRaisedException();
    PyObject *message = PyUnicode_FromString(error);
    begin_handling(exc, &outer);
    int reported = message == NULL ? -1 : report(self, message, exc);
    end_handling(&outer);
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

int
Transport_as_size(PyObject *number, Py_ssize_t *size)
{
    if (PyFloat_Check(number) && isinf(PyFloat_AS_DOUBLE(number)) &&
        PyFloat_AS_DOUBLE(number) > 0) {
        *size = PY_SSIZE_T_MAX;
        return 0;
    }
    PyObject *integer = PyNumber_Long(number);
    *size = integer == NULL ? -1 : PyNumber_AsSsize_t(integer, NULL);
    Py_XDECREF(integer);
    return *size == -1 && PyErr_Occurred() ? -1 : 0;
}

/* high >= low >= 0, and they are stored.  Runs Python. */
static int
store_limits(TransportObject *self, PyObject *high, PyObject *low)
{
    Py_ssize_t high_water, low_water;
    PyObject *zero = PyLong_FromLong(0);
    int valid = zero == NULL ? -1 : PyObject_RichCompareBool(high, low, Py_GE);

    if (valid > 0) {
        valid = PyObject_RichCompareBool(low, zero, Py_GE);
    }
    Py_XDECREF(zero);
    if (valid == 0) {
        PyErr_Format(PyExc_ValueError,
                     "high (%R) must be >= low (%R) must be >= 0", high, low);
    }
    if (valid <= 0 || Transport_as_size(high, &high_water) < 0 ||
        Transport_as_size(low, &low_water) < 0) {
        return -1;
    }
    self->high_water = (size_t)high_water;
    self->low_water = (size_t)low_water;
    return 0;
}

int
Transport_set_limits(TransportObject *self, PyObject *high, PyObject *low)
{
    enum { HIGH_WATER = 64 * 1024 };
    PyObject *four;
    int result = -1;

    if (high == Py_None && low == Py_None) {
        self->high_water = HIGH_WATER;
        self->low_water = HIGH_WATER / 4;
        return 0;
    }
    four = PyLong_FromLong(4);
    if (four == NULL) {
        return -1;
    }
    high = high == Py_None ? PyNumber_Multiply(four, low) : Py_NewRef(high);
    if (high != NULL) {
        low =
            low == Py_None ? PyNumber_FloorDivide(high, four) : Py_NewRef(low);
        if (low != NULL) {
            result = store_limits(self, high, low);
            Py_DECREF(low);
        }
        Py_DECREF(high);
    }
    Py_DECREF(four);
    return result;
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
    /* In asyncio that of whoever closes, unless the user gave one. */
    PyObject *context = self->one_context ? self->context : NULL;
    HandleObject *handle =
        method == NULL ? NULL : Handle_new(loop, method, &exc, 1, context);
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
    if (!self->closing || self->conn_lost != 0 || self->loop == NULL) {
        return 0;
    }
    self->conn_lost++;
    PyObject *result = PyObject_CallMethodOneArg(
        (PyObject *)self, self->state->str__call_connection_lost, Py_None);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
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

static int
force_close(TransportObject *self, PyObject *exc)
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
int
Transport_abort(TransportObject *self, PyObject *exc)
{
    if (self->conn_lost || self->loop == NULL) {
        return 0;
    }
    return self->ops->flush(self) < 0 ? -1 : force_close(self, exc);
}

int
Transport_end_with(TransportObject *self, PyObject *exc, PyObject *message)
{
    int result;

    if (self->loop == NULL) {
        return 0;
    }
    bool ordinary = self->ops->is_ordinary != NULL
        ? self->ops->is_ordinary(exc)
        : PyErr_GivenExceptionMatches(exc, PyExc_OSError) != 0;
    if (!ordinary) {
        result = report(self, message, exc);
    }
    else {
        result = self->loop->debug
            ? Transport_log(self, "%r: %s", message, exc)
            : 0;
    }
    PyObject *raised = result < 0 ? PyErr_GetRaisedException() : NULL;
    if (force_close(self, exc) < 0) {
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
    handled_exception outer;
    PyObject *exc = PyErr_GetRaisedException();
    PyObject *text = PyUnicode_FromString(message);
    begin_handling(exc, &outer);
    int result = text == NULL ? -1 : Transport_end_with(self, exc, text);
    end_handling(&outer);
    Py_XDECREF(text);
    Py_DECREF(exc);
    return result;
}

int
Transport_is_lost(TransportObject *self)
{
    enum { LOG_THRESHOLD = 5 }; /* LOG_THRESHOLD_FOR_CONNLOST_WRITES */

    if (self->conn_lost == 0) {
        return 0;
    }
    if (self->conn_lost >= LOG_THRESHOLD) {
        PyObject *result =
            PyObject_CallMethod(self->state->logger, "warning", "s",
                                "socket.send() raised exception.");
        if (result == NULL) {
            return -1;
        }
        Py_DECREF(result);
    }
    self->conn_lost++;
    return 1;
}

/* Close the descriptor.  Runs Python. */
static void
release(TransportObject *self)
{
    if (!self->open) {
        return;
    }
    self->ops->discard(self);
    Transport_learn_sockname(self);  // The last chance.
    /* In this order: libuv takes the descriptor out of the epoll set, which
       must not be somebody else's by then. */
    Fds_release(self);
    if (self->sock == NULL || self->duplicate) {
        close(self->fd);
    }
    if (self->sock == NULL) {
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
tell_server(TransportObject *self, PyObject *server, PyObject *method)
{
    PyObject *args[] = {server, (PyObject *)self};
    PyObject *result = PyObject_VectorcallMethod(
        method, args, self->state->server_keeps_clients ? 2 : 1, NULL);

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

PyObject *
Transport_call_connection_lost(TransportObject *self, PyObject *exc)
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
    self->direct = NULL;
    Py_CLEAR(self->protocol);
    if (server != NULL &&
        tell_server(self, server, self->state->str__detach) < 0 &&
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
    if (self->open && self->ops->keeps_open) {
        Fds_release(self);
        if (self->duplicate) {
            close(self->fd);
        }
        self->abandoned = true;
    }
    else {
        release(self);
    }
    self->direct = NULL;
    Py_CLEAR(self->protocol);
    if (self->server != NULL && self->state->server_keeps_clients &&
        self->loop != NULL && !self->loop->closed &&
        tell_server(self, self->server, self->state->str__detach) < 0) {
        PyErr_WriteUnraisable((PyObject *)self);
    }
    Py_CLEAR(self->server);
    Py_CLEAR(self->loop);
    Py_DECREF(self);
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
    self->streams =
        (PyObject *)Py_TYPE(protocol) == self->state->StreamReaderProtocol;
    self->protocol_connected = true;
    self->direct = NULL;
    Py_XSETREF(self->protocol, Py_NewRef(protocol));
    return 0;
}

/* Runs Python. */
static void
start_reading(TransportObject *self)
{
    LoopObject *loop = self->loop;

    if (self->closing || self->paused) {
        return;
    }
    self->reading = true;
    if (Transport_watch(self) == 0) {
        return;
    }
    if (self->unwatchable) {
        /* asyncio, too, leaves it at that: it may have been opened in vain. */
        self->reading = false;
        Loop_report(loop, "Cannot watch the pipe", "transport",
                    (PyObject *)self);
    }
    else if (Transport_fatal_error(self, "Cannot watch the connection") < 0) {
        Loop_fail(loop);
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
    /* What is there to be read comes behind the task that the waiter wakes. */
    start_reading(self);
    if (waiter != NULL && Future_resolve(loop, waiter, Py_None) < 0) {
        Loop_report(loop, "Cannot tell that it is connected", "transport",
                    object);
    }
    Py_XDECREF(waiter);
}

static int
queue_connection_made(TransportObject *self, PyObject *protocol)
{
    LoopObject *loop = self->home;
    PyObject *argument = (PyObject *)self;
    PyObject *method =
        PyObject_GetAttr(protocol, self->state->str_connection_made);

    /* What was called until here may have done it. */
    if (method != NULL && Fds_check_open(loop) < 0) {
        Py_CLEAR(method);
    }
    /* In asyncio what it changes there is not seen by what comes later, unless
       the user gave a context. */
    PyObject *context = self->one_context ? self->context : NULL;
    HandleObject *handle = method == NULL
        ? NULL
        : Handle_new(loop, method, &argument, 1, context);
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

static int
check_unused(LoopObject *loop, int fd)
{
    TransportObject *user = loop->fds[fd].transport;

    if (user == NULL) {
        return 0;
    }
    PyErr_Format(PyExc_RuntimeError,
                 "File descriptor %d is used by transport %R", fd, user);
    return -1;
}

/* Put the descriptor under the loop's watch. */
static int
start_using(TransportObject *self, const transport_origin *from)
{
    LoopObject *loop = from->loop;
    int fd = from->fd;
    uv_poll_t *uv = NULL;

    if (Fds_reserve(loop, fd) == NULL || check_unused(loop, fd) < 0) {
        return -1;
    }
    int err = Fds_take_uv(loop, fd, &uv);
    if (Fds_check_open(loop) < 0) {
        return -1;
    }
    self->unwatchable = err == UV_EPERM && from->pipe;
    if (err < 0 && !self->unwatchable) {
        raise_uv(err);
        return -1;
    }
    if (check_unused(loop, fd) < 0) {
        return -1;
    }
    self->home = loop;
    self->uv = uv;
    if (uv != NULL) {
        uv->data = self;
    }
    loop->fds[fd].transport = self;
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
    self->one_context = from->one_context;
    self->duplicate = from->duplicate;
    self->context = from->context != NULL ? Py_NewRef(from->context)
                                          : PyContext_CopyCurrent();
    if (self->context == NULL ||
        Transport_set_limits(self, Py_None, Py_None) < 0 ||
        start_using(self, from) < 0) {
        return -1;
    }
    if ((!from->pipe && Transport_learn_addresses(self, from) < 0) ||
        Transport_set_protocol(self, from->protocol) < 0) {
        goto error;
    }
    if (from->server != NULL) {
        if (tell_server(self, from->server, self->state->str__attach) < 0) {
            goto error;
        }
        self->server = Py_NewRef(from->server);
    }
    if (queue_connection_made(self, from->protocol) < 0) {
        goto error;
    }
    return 0;
error:;
    PyObject *exc = PyErr_GetRaisedException();
    if (self->server != NULL &&
        tell_server(self, self->server, self->state->str__detach) < 0) {
        PyErr_WriteUnraisable((PyObject *)self);
    }
    /* The caller keeps the descriptor, unless the loop was closed. */
    if (self->open) {
        Fds_release(self);
    }
    Py_CLEAR(self->loop);
    PyErr_SetRaisedException(exc);
    return -1;
}

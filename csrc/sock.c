/* What sock_recv() and its kin await: the call is tried at once and, as long
   as the socket is not ready for it, again whenever that changes.

   The trying is done by the awaiting task itself.  What is received is thus
   never on its way to somebody who was cancelled meanwhile.  The socket's own
   methods do the work; only for plain sockets, bytes in and bytes out are one
   system call here, because "not yet" is an expensive exception there. */
#include "ouroloop.h"

#include <errno.h>
#include <poll.h>

/* Of what can be sent without the socket being full, so many parts are; then
   others have their turn. */
enum { MAX_PARTS = 16 };
enum { MAX_ARGS = 4 };

typedef struct SockCallObject SockCallObject;

/* One kind of call. */
typedef struct {
    uint16_t method; /* of the socket, as ARG(name) */
    uint8_t arg_count;
    int event; /* what it waits for */
    /* DONE with the result, new; else one of the others.  Runs Python. */
    int (*attempt)(SockCallObject *self, PyObject **result);
} sock_kind;
enum { FAILED = -1, NOT_READY, DONE, LATER };

struct SockCallObject {
    PyObject_HEAD
    LoopObject *loop;
    const sock_kind *kind;
    PyObject *sock, *args[MAX_ARGS];
    fd_waiter waiter;
    Py_buffer view;  /* of sock_sendall()'s data; obj NULL: none */
    PyObject *rest;  /* the same for other sockets: a memoryview of bytes */
    Py_ssize_t sent; /* bytes, of sock_sendall() and sock_sendfile() */
    bool started, ended;
    bool running; /* not to be entered again from what it calls */
    bool blocked; /* it was the kernel that said "not yet" */
};

static module_state *
state_of_call(SockCallObject *self)
{
    return self->loop->state;
}

/* The socket. */

static PyObject *
method_name(SockCallObject *self)
{
    return *(PyObject **)((char *)state_of_call(self) + self->kind->method);
}

/* Is it just a socket, with the socket module's own method? */
static bool
is_plain(SockCallObject *self)
{
    module_state *state = state_of_call(self);
    PyTypeObject *type = Py_TYPE(self->sock);
    PyObject *name = method_name(self);

    return type == (PyTypeObject *)state->socket && !self->loop->debug &&
        _PyType_Lookup(type, name) ==
        _PyType_Lookup((PyTypeObject *)state->SocketType, name);
}

/* -1 if it is closed; -2 with an exception.  Runs Python. */
static int
get_fd(SockCallObject *self)
{
    PyObject *number =
        PyObject_CallMethodNoArgs(self->sock, state_of_call(self)->str_fileno);
    long fd = number == NULL ? -2 : PyLong_AsLong(number);

    Py_XDECREF(number);
    if (fd == -1 && PyErr_Occurred()) {
        return -2;
    }
    return fd < -1 || fd > INT_MAX ? -1 : (int)fd;
}

/* Has it no timeout but zero?  -1 with an exception.  Runs Python. */
static int
is_nonblocking(SockCallObject *self)
{
    PyObject *timeout = PyObject_CallMethodNoArgs(
        self->sock, state_of_call(self)->str_gettimeout);
    PyObject *zero = timeout == NULL ? NULL : PyLong_FromLong(0);
    int result =
        zero == NULL ? -1 : PyObject_RichCompareBool(timeout, zero, Py_EQ);

    Py_XDECREF(timeout);
    Py_XDECREF(zero);
    return result;
}

/* What asyncio checks first.  Runs Python. */
static int
check_socket(SockCallObject *self)
{
    module_state *state = state_of_call(self);

    if (Py_TYPE(self->sock) != (PyTypeObject *)state->socket) {
        PyObject *value =
            PyObject_CallOneArg(state->_check_ssl_socket, self->sock);
        if (value == NULL) {
            return -1;
        }
        Py_DECREF(value);
    }
    int nonblocking = self->loop->debug ? is_nonblocking(self) : 1;
    if (nonblocking == 0) {
        PyErr_SetString(PyExc_ValueError, "the socket must be non-blocking");
    }
    return nonblocking > 0 ? 0 : -1;
}

/* The set exception: is it that the socket is not ready? */
static int
not_ready_or_failed(void)
{
    if (PyErr_ExceptionMatches(PyExc_BlockingIOError) ||
        PyErr_ExceptionMatches(PyExc_InterruptedError)) {
        PyErr_Clear();
        return NOT_READY;
    }
    return FAILED;
}

/* As the socket itself does it, or says why not.  Runs Python. */
static int
attempt_method(SockCallObject *self, PyObject **result)
{
    PyObject *args[MAX_ARGS + 2] = {NULL, self->sock};

    memcpy(args + 2, self->args, sizeof(self->args));
    *result = PyObject_VectorcallMethod(
        method_name(self), args + 1,
        (size_t)(self->kind->arg_count + 1) | PY_VECTORCALL_ARGUMENTS_OFFSET,
        NULL);
    return *result != NULL ? DONE : not_ready_or_failed();
}

/* A system call of ours has failed, with errno.  A socket that is to block
   does so, whatever is said of it in the documentation, by its own method:
   -2 asks for that.  Runs Python. */
static int
fail_call(SockCallObject *self, int fd)
{
    if (errno == EAGAIN || errno == EWOULDBLOCK) {
        int nonblocking = is_nonblocking(self);
        self->blocked = nonblocking > 0;
        return nonblocking > 0 ? NOT_READY : nonblocking < 0 ? FAILED : -2;
    }
    PyErr_SetFromErrno(PyExc_OSError);
    Fds_let_go(self->loop, fd);
    return FAILED;
}

/* In. */

/* As recv() on a non-blocking socket: -1 with errno. */
static ssize_t
receive(SockCallObject *self, int fd, void *buffer, size_t size)
{
    ssize_t count;

    do {
        count = recv(fd, buffer, size, MSG_DONTWAIT);
    } while (count < 0 && errno == EINTR);
    if (count == 0) {
        int err = errno;
        Fds_let_go(self->loop, fd);
        errno = err;
    }
    return count;
}

/* Up to so many bytes, new; NULL with an exception or without: see errno. */
static PyObject *
receive_bytes(SockCallObject *self, int fd, Py_ssize_t size)
{
    enum { SMALL = 4 * 1024, LARGE = 32 * 1024 };
    LoopObject *loop = self->loop;
    PyObject *data;
    ssize_t count;

    /* Mostly much less comes than was asked for.  An object of that size is
       then dearer than a copy. */
    if (size <= SMALL || size > STREAM_MAX_READ || loop->received > LARGE) {
        data = PyBytes_FromStringAndSize(NULL, size);
        if (data == NULL) {
            return NULL;
        }
        count = receive(self, fd, PyBytes_AS_STRING(data), (size_t)size);
        if (count < 0) {
            int err = errno;
            Py_DECREF(data);
            errno = err;
            return NULL;
        }
        if (count < size) {
            _PyBytes_Resize(&data, count);
        }
    }
    else {
        char *buffer = Stream_shared_buffer(loop);
        if (buffer == NULL) {
            return NULL;
        }
        count = receive(self, fd, buffer, (size_t)size);
        if (count < 0) {
            return NULL;
        }
        data = PyBytes_FromStringAndSize(buffer, count);
    }
    loop->received = count;
    return data;
}

static int
attempt_recv(SockCallObject *self, PyObject **result)
{
    Py_ssize_t size = -1;

    if (PyLong_CheckExact(self->args[0]) && is_plain(self)) {
        size = PyLong_AsSsize_t(self->args[0]);
        PyErr_Clear();
    }
    int fd = size > 0 ? get_fd(self) : -1;
    if (fd < 0) {
        return fd == -2 ? FAILED : attempt_method(self, result);
    }
    *result = receive_bytes(self, fd, size);
    if (*result != NULL) {
        return DONE;
    }
    int outcome = PyErr_Occurred() ? FAILED : fail_call(self, fd);
    return outcome == -2 ? attempt_method(self, result) : outcome;
}

static int
attempt_recv_into(SockCallObject *self, PyObject **result)
{
    Py_buffer view;
    int fd = is_plain(self) ? get_fd(self) : -1;

    if (fd == -2) {
        return FAILED;
    }
    if (fd < 0 ||
        PyObject_GetBuffer(self->args[0], &view, PyBUF_WRITABLE) < 0) {
        PyErr_Clear();
        return attempt_method(self, result);
    }
    if (view.len == 0 || !PyBuffer_IsContiguous(&view, 'C')) {
        PyBuffer_Release(&view);
        return attempt_method(self, result);
    }
    ssize_t count = receive(self, fd, view.buf, (size_t)view.len);
    int err = errno;
    PyBuffer_Release(&view);
    if (count >= 0) {
        *result = PyLong_FromSsize_t(count);
        return *result == NULL ? FAILED : DONE;
    }
    errno = err;
    int outcome = fail_call(self, fd);
    return outcome == -2 ? attempt_method(self, result) : outcome;
}

static int
attempt_recvfrom_into(SockCallObject *self, PyObject **result)
{
    int given = PyObject_IsTrue(self->args[1]);

    if (given == 0) {
        Py_ssize_t size = PyObject_Size(self->args[0]);
        PyObject *number = size < 0 ? NULL : PyLong_FromSsize_t(size);
        if (number == NULL) {
            return FAILED;
        }
        Py_SETREF(self->args[1], number);
    }
    return given < 0 ? FAILED : attempt_method(self, result);
}

static int
attempt_accept(SockCallObject *self, PyObject **result)
{
    PyObject *pair = NULL, *connection, *value;
    int outcome = attempt_method(self, &pair);

    if (outcome != DONE) {
        return outcome;
    }
    Py_SETREF(pair, PySequence_Tuple(pair));
    if (pair == NULL ||
        !PyArg_UnpackTuple(pair, "accept", 2, 2, &connection, &value)) {
        Py_XDECREF(pair);
        return FAILED;
    }
    value = PyObject_CallMethodOneArg(
        connection, state_of_call(self)->str_setblocking, Py_False);
    if (value == NULL) {
        Py_DECREF(pair);
        return not_ready_or_failed();
    }
    Py_DECREF(value);
    *result = pair;
    return DONE;
}

/* Out. */

/* The data of sock_sendall() that is not sent yet, for the socket's own
   method.  New.  Runs Python. */
static PyObject *
unsent_data(SockCallObject *self)
{
    if (self->rest == NULL) {
        self->rest = PyMemoryView_FromObject(self->args[0]);
        if (self->rest != NULL &&
            PyMemoryView_GET_BUFFER(self->rest)->itemsize != 1) {
            Py_SETREF(self->rest,
                      PyObject_CallMethod(self->rest, "cast", "s", "B"));
        }
    }
    return self->rest == NULL
        ? NULL
        : PySequence_GetSlice(self->rest, self->sent, PY_SSIZE_T_MAX);
}

static int
attempt_send_method(SockCallObject *self, PyObject **result)
{
    bool first = self->sent == 0 && self->rest == NULL;
    PyObject *data = first ? Py_NewRef(self->args[0]) : unsent_data(self);
    PyObject *value = data == NULL
        ? NULL
        : PyObject_CallMethodOneArg(self->sock, method_name(self), data);
    Py_ssize_t size = -1;

    if (value == NULL) {
        bool called = data != NULL;
        Py_XDECREF(data);
        return called ? not_ready_or_failed() : FAILED;
    }
    Py_ssize_t sent = PyLong_AsSsize_t(value);
    if (sent != -1 || !PyErr_Occurred()) {
        size = PyObject_Size(data);
    }
    Py_DECREF(data);
    Py_DECREF(value);
    if (size < 0) {
        return FAILED;
    }
    self->sent += sent;
    if (sent == size) {
        *result = Py_NewRef(Py_None);
        return DONE;
    }
    return NOT_READY;
}

static int
attempt_send(SockCallObject *self, PyObject **result)
{
    int fd = is_plain(self) && self->rest == NULL ? get_fd(self) : -1;

    if (fd == -2) {
        return FAILED;
    }
    if (fd >= 0 && self->view.obj == NULL &&
        PyObject_GetBuffer(self->args[0], &self->view, PyBUF_SIMPLE) < 0) {
        PyErr_Clear();
        fd = -1;
    }
    if (fd < 0) {
        return attempt_send_method(self, result);
    }
    for (int parts = 0; parts < MAX_PARTS; parts++) {
        ssize_t sent;
        do {
            sent = send(fd, (char *)self->view.buf + self->sent,
                        (size_t)(self->view.len - self->sent),
                        MSG_DONTWAIT | COMPAT_MSG_NOSIGNAL);
        } while (sent < 0 && errno == EINTR);
        if (sent < 0) {
            if (parts > 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
                self->blocked = true;
                return NOT_READY;
            }
            int outcome = fail_call(self, fd);
            return outcome == -2 ? attempt_send_method(self, result) : outcome;
        }
        self->sent += sent;
        if (self->sent == self->view.len) {
            *result = Py_NewRef(Py_None);
            return DONE;
        }
    }
    return LATER;
}

static int
attempt_connect(SockCallObject *self, PyObject **result)
{
    if (self->waiter.future == NULL) {
        int outcome = attempt_method(self, result);
        if (outcome == DONE) {
            Py_SETREF(*result, Py_NewRef(Py_None));
        }
        return outcome;
    }
    PyObject *value = PyObject_CallMethod(self->sock, "getsockopt", "ii",
                                          SOL_SOCKET, SO_ERROR);
    long err = value == NULL ? -1 : PyLong_AsLong(value);
    Py_XDECREF(value);
    if (err == -1 && PyErr_Occurred()) {
        return not_ready_or_failed();
    }
    if (err == 0) {
        *result = Py_NewRef(Py_None);
        return DONE;
    }
    PyObject *exc = NULL,
             *text =
                 PyUnicode_FromFormat("Connect call failed %S", self->args[0]);
    if (text != NULL) {
        exc = PyObject_CallFunction(PyExc_OSError, "lO", err, text);
        Py_DECREF(text);
    }
    if (exc != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
        Py_DECREF(exc);
    }
    return not_ready_or_failed();
}

/* sock_sendfile(): file, offset, count or 0, and how much to ask for without
   one.  os.sendfile() is called by name, and so knows each platform's. */

/* The set OSError in asyncio's terms: nothing was sent, so it may be another
   kind of file; or the peer has gone in the middle. */
static void
translate_sendfile_error(SockCallObject *self)
{
    if (self->sent == 0) {
        PyErr_Clear();
        PyErr_SetString(state_of_call(self)->SendfileNotAvailableError,
                        "os.sendfile call failed");
        return;
    }
    PyObject *exc = PyErr_GetRaisedException();
    PyObject *number = PyObject_GetAttrString(exc, "errno");
    long err = number == NULL ? -1 : PyLong_AsLong(number);
    Py_XDECREF(number);
    PyErr_Clear();
    if (err == ENOTCONN && (PyObject *)Py_TYPE(exc) != PyExc_ConnectionError) {
        PyObject *other = PyObject_CallFunction(
            PyExc_ConnectionError, "si", "socket is not connected", ENOTCONN);
        if (other == NULL) {
            Py_DECREF(exc);
            return;
        }
        PyException_SetCause(other, exc);
        exc = other;
    }
    PyErr_SetRaisedException(exc);
}

static int
attempt_sendfile(SockCallObject *self, PyObject **result)
{
    PyObject *os = NULL;
    Py_ssize_t offset = PyLong_AsSsize_t(self->args[1]);
    Py_ssize_t count = PyLong_AsSsize_t(self->args[2]);
    Py_ssize_t size = PyLong_AsSsize_t(self->args[3]);
    int outcome = PyErr_Occurred() ? FAILED : LATER;

    if (outcome == LATER) {
        os = PyImport_ImportModule("os");
        outcome = os == NULL ? FAILED : LATER;
    }
    for (int parts = 0; outcome == LATER && parts < MAX_PARTS; parts++) {
        if (count > 0) {
            size = count - self->sent;
        }
        int fd = get_fd(self);
        if (fd == -2) {
            outcome = FAILED;
            break;
        }
        PyObject *value = count > 0 && size <= 0
            ? PyLong_FromLong(0)
            : PyObject_CallMethod(os, "sendfile", "iOnn", fd, self->args[0],
                                  offset + self->sent,
                                  Py_MIN(size, PY_SSIZE_T_MAX / 2 + 1));
        Py_ssize_t sent = value == NULL ? -1 : PyLong_AsSsize_t(value);
        Py_XDECREF(value);
        if (sent > 0) {
            self->sent += sent;
        }
        else if (sent == 0) {
            *result = PyLong_FromSsize_t(self->sent);
            outcome = *result == NULL ? FAILED : DONE;
        }
        else {
            outcome = not_ready_or_failed();
            if (outcome == FAILED && PyErr_ExceptionMatches(PyExc_OSError)) {
                translate_sendfile_error(self);
            }
        }
    }
    Py_XDECREF(os);
    return outcome;
}

/* The iterator that `await` drives. */

static void
let_data_go(SockCallObject *self)
{
    PyBuffer_Release(&self->view);
    Py_CLEAR(self->rest);
}

/* Runs Python. */
static void
end(SockCallObject *self)
{
    PyObject *exc = PyErr_GetRaisedException();

    self->ended = true;
    Fds_end_wait(&self->waiter);
    let_data_go(self);
    if (exc != NULL) {
        PyErr_SetRaisedException(exc);
    }
}

/* Is the descriptor ready, though the socket said that it was not?  It may
   have become that just now, or the socket has its own mind. */
static bool
is_ready_after_all(SockCallObject *self, int fd)
{
    struct pollfd question = {
        .fd = fd,
        .events = self->kind->event == UV_READABLE ? POLLIN : POLLOUT,
    };

    return poll(&question, 1, 0) != 0;
}

/* Have the task wait: yields the future.  Runs Python. */
static PyObject *
wait(SockCallObject *self)
{
    module_state *state = state_of_call(self);
    PyObject *number =
        PyObject_CallMethodNoArgs(self->sock, state->str_fileno);
    int fd = number == NULL || Fds_ensure_free(self->loop, number) < 0
        ? -1
        : Fds_number(self->loop, number);

    Py_XDECREF(number);
    if (fd < 0) {
        return NULL;
    }
    self->waiter.again = !self->blocked && is_ready_after_all(self, fd);
    if (Fds_wait(self->loop, &self->waiter, fd) < 0) {
        return NULL;
    }
    PyObject *future = Py_NewRef(self->waiter.future);
    if (Py_TYPE(future) == state->FutureType) {
        ((FutureObject *)future)->blocking = 1;
    }
    else if (PyObject_SetAttr(future, state->str__asyncio_future_blocking,
                              Py_True) < 0) {
        Py_CLEAR(future);
    }
    return future;
}

/* Was it the future that has woken us, and without an error?  Runs Python. */
static int
check_woken(SockCallObject *self)
{
    FutureObject *future = (FutureObject *)self->waiter.future;

    if (Py_TYPE(future) == state_of_call(self)->FutureType) {
        if (future->state == FUTURE_FINISHED && future->exception == NULL) {
            return 0;
        }
        if (future->state == FUTURE_PENDING) {
            PyErr_SetString(PyExc_RuntimeError,
                            "await wasn't used with future");
            return -1;
        }
    }
    PyObject *value = PyObject_CallMethodNoArgs(
        (PyObject *)future, state_of_call(self)->str_result);
    Py_XDECREF(value);
    return value == NULL ? -1 : 0;
}

/* Runs Python. */
static PySendResult
step(SockCallObject *self, PyObject **result)
{
    *result = NULL;
    if (!self->started) {
        self->started = true;
        if (check_socket(self) < 0) {
            return PYGEN_ERROR;
        }
    }
    else if (self->waiter.future != NULL) {
        if (check_woken(self) < 0) {
            return PYGEN_ERROR;
        }
        Fds_end_wait(&self->waiter);
    }
    self->blocked = false;
    Loop_poll_next(self->loop);
    switch (self->kind->attempt(self, result)) {
    case DONE:
        return PYGEN_RETURN;
    case LATER:
        *result = Py_NewRef(Py_None);
        return PYGEN_NEXT;
    case NOT_READY:
        *result = wait(self);
        return *result == NULL ? PYGEN_ERROR : PYGEN_NEXT;
    default:
        return PYGEN_ERROR;
    }
}

/* As a generator, it cannot be entered or ended from what it calls. */
static bool
is_running(SockCallObject *self)
{
    if (self->running) {
        PyErr_SetString(PyExc_RuntimeError, "call is being tried already");
    }
    return self->running;
}

static PySendResult
SockCall_am_send(PyObject *op, PyObject *Py_UNUSED(value), PyObject **result)
{
    SockCallObject *self = (SockCallObject *)op;

    *result = NULL;
    if (is_running(self)) {
        return PYGEN_ERROR;
    }
    if (self->ended) {
        PyErr_SetString(PyExc_RuntimeError,
                        "cannot reuse already awaited call");
        return PYGEN_ERROR;
    }
    self->running = true;
    PySendResult sent = step(self, result);
    self->running = false;
    if (sent != PYGEN_NEXT) {
        end(self);
    }
    return sent;
}

static PyObject *
SockCall_next(PyObject *op)
{
    PyObject *result;
    PySendResult sent = SockCall_am_send(op, Py_None, &result);

    if (sent == PYGEN_RETURN) {
        PyObject *stop = PyObject_CallOneArg(PyExc_StopIteration, result);
        Py_CLEAR(result);
        if (stop != NULL) {
            PyErr_SetObject(PyExc_StopIteration, stop);
            Py_DECREF(stop);
        }
    }
    return result;
}

static PyObject *
SockCall_send(PyObject *op, PyObject *Py_UNUSED(value))
{
    return SockCall_next(op);
}

static PyObject *
SockCall_throw(PyObject *op, PyObject *const *args, Py_ssize_t nargs)
{
    SockCallObject *self = (SockCallObject *)op;
    module_state *state = state_of_call(self);
    PyObject *result = NULL;

    if (is_running(self)) {
        return NULL;
    }
    /* asyncio's iterator has the checks and warnings of the version; it does
       not look at its future. */
    PyObject *throw =
        PyObject_GetAttr(state->stock.iterator, state->str_throw);

    if (throw != NULL) {
        result = PyObject_Vectorcall(throw, args, nargs, NULL);
        Py_DECREF(throw);
    }
    end(self);
    return result;
}

static PyObject *
SockCall_close(PyObject *op, PyObject *Py_UNUSED(ignored))
{
    if (is_running((SockCallObject *)op)) {
        return NULL;
    }
    end((SockCallObject *)op);
    Py_RETURN_NONE;
}

/* Life. */

static int
SockCall_traverse(SockCallObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->loop);
    Py_VISIT(self->sock);
    for (int i = 0; i < MAX_ARGS; i++) {
        Py_VISIT(self->args[i]);
    }
    Py_VISIT(self->waiter.future);
    Py_VISIT(self->view.obj);
    Py_VISIT(self->rest);
    return 0;
}

static int
SockCall_clear(SockCallObject *self)
{
    self->ended = true;
    Fds_end_wait(&self->waiter);
    let_data_go(self);
    Py_CLEAR(self->waiter.future);
    Py_CLEAR(self->sock);
    for (int i = 0; i < MAX_ARGS; i++) {
        Py_CLEAR(self->args[i]);
    }
    return 0;
}

static void
SockCall_dealloc(SockCallObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    (void)SockCall_clear(self);
    Py_CLEAR(self->loop); /* last: the others are looked at through it */
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static PyObject *
start(LoopObject *loop, const sock_kind *kind, PyObject *const *args,
      Py_ssize_t nargs)
{
    if (nargs != kind->arg_count + 1) {
        PyErr_Format(PyExc_TypeError, "expected %d arguments, got %zd",
                     kind->arg_count + 1, nargs);
        return NULL;
    }
    SockCallObject *self =
        PyObject_GC_New(SockCallObject, loop->state->SockCallType);
    if (self == NULL) {
        return NULL;
    }
    memset((char *)self + sizeof(PyObject), 0,
           sizeof(*self) - sizeof(PyObject));
    self->loop = (LoopObject *)Py_NewRef(loop);
    self->kind = kind;
    self->sock = Py_NewRef(args[0]);
    for (int i = 0; i < kind->arg_count; i++) {
        self->args[i] = Py_NewRef(args[i + 1]);
    }
    self->waiter.owner = (PyObject *)self;
    self->waiter.sock = self->sock;
    self->waiter.event = kind->event;
    PyObject_GC_Track(self);
    return (PyObject *)self;
}

#define CALL(name, method, arg_count, event, attempt)                      \
    PyObject *Loop__call_##name(LoopObject *self, PyObject *const *args,   \
                                Py_ssize_t nargs)                          \
    {                                                                      \
        static const sock_kind kind = {ARG(method), arg_count, event,      \
                                       attempt};                           \
        return start(self, &kind, args, nargs);                            \
    }

CALL(recv, recv, 1, UV_READABLE, attempt_recv)
CALL(recv_into, recv_into, 1, UV_READABLE, attempt_recv_into)
CALL(recvfrom, recvfrom, 1, UV_READABLE, attempt_method)
CALL(recvfrom_into, recvfrom_into, 2, UV_READABLE, attempt_recvfrom_into)
CALL(accept, accept, 0, UV_READABLE, attempt_accept)
CALL(sendall, send, 1, UV_WRITABLE, attempt_send)
CALL(sendto, sendto, 2, UV_WRITABLE, attempt_method)
CALL(connect, connect, 1, UV_WRITABLE, attempt_connect)
CALL(sendfile, sendfile, 4, UV_WRITABLE, attempt_sendfile)

static PyMethodDef SockCall_methods[] = {
    {"send", SockCall_send, METH_O, NULL},
    {"throw", (PyCFunction)(void (*)(void))SockCall_throw, METH_FASTCALL,
     NULL},
    {"close", SockCall_close, METH_NOARGS, NULL},
    {NULL},
};

static PyMemberDef SockCall_members[] = {
    {"sent", T_PYSSIZET, offsetof(SockCallObject, sent), READONLY, NULL},
    {NULL},
};

static PyType_Slot SockCall_slots[] = {
    {Py_tp_iter, PyObject_SelfIter},     {Py_tp_iternext, SockCall_next},
    {Py_am_await, PyObject_SelfIter},    {Py_am_send, SockCall_am_send},
    {Py_tp_methods, SockCall_methods},   {Py_tp_members, SockCall_members},
    {Py_tp_traverse, SockCall_traverse}, {Py_tp_clear, SockCall_clear},
    {Py_tp_dealloc, SockCall_dealloc},   {0, NULL},
};

static PyType_Spec SockCall_spec = {
    .name = "ouroloop._core.SockCall",
    .basicsize = sizeof(SockCallObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
        Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = SockCall_slots,
};

int
SockCall_setup_type(PyObject *module, module_state *state)
{
    state->SockCallType =
        (PyTypeObject *)PyType_FromModuleAndSpec(module, &SockCall_spec, NULL);
    return state->SockCallType == NULL ? -1 : 0;
}

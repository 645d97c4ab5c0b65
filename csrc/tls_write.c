/* TLS, the way out: what the application writes becomes records.

   What is written while a callback runs is encrypted when it ends, as
   Stream_flush() sends it then: several small writes make one record and one
   system call.  Over a transport that is not ours each write is encrypted and
   passed on at once. */
#include "ouroloop.h"

enum {
    /* Encrypted at once.  The MemoryBIO keeps the memory of the most that it
       has held: it becomes large only where a slow peer has made it so. */
    SLICE = 4 * TLS_RECORD,
    LARGE_SLICE = 16 * TLS_RECORD,
    MAX_HELD_BACK = SLICE, /* until a callback ends */
};

Py_ssize_t
Tls_pending(PyObject *bio)
{
    PyObject *number = PyObject_GetAttrString(bio, "pending");
    Py_ssize_t size = number == NULL ? -1 : PyLong_AsSsize_t(number);

    Py_XDECREF(number);
    return size;
}

bool
Tls_is_again(TlsObject *self)
{
    PyObject *exc = PyErr_GetRaisedException();
    PyObject *errors =
        PyObject_GetAttrString(self->state->sslproto, "SSLAgainErrors");
    bool again =
        errors != NULL && PyErr_GivenExceptionMatches(exc, errors) != 0;

    Py_XDECREF(errors);
    if (again) {
        Py_DECREF(exc);
    }
    else {
        PyErr_SetRaisedException(exc);
    }
    return again;
}

char *
Tls_scratch(TlsObject *self)
{
    if (self->loop == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "the protocol has no loop");
        return NULL;
    }
    return Stream_shared_buffer(self->loop);
}

int
Tls_call(PyObject *object, PyObject *method)
{
    PyObject *result = PyObject_CallMethodNoArgs(object, method);

    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

int
Tls_fail(TlsObject *self)
{
    if (!PyErr_ExceptionMatches(PyExc_Exception)) {
        return -1;
    }
    handled_exception outer;
    PyObject *exc = PyErr_GetRaisedException();
    begin_handling(exc, &outer);
    PyObject *result =
        PyObject_CallMethod((PyObject *)self, "_fatal_error", "Os", exc,
                            "Fatal error on SSL protocol");
    end_handling(&outer);
    Py_DECREF(exc);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* The transport below, if it is one of ours and nobody has replaced its
   write().  Borrowed. */
static TransportObject *
stream_below(TlsObject *self)
{
    if (!Py_IS_TYPE(self->transport, self->state->StreamTransportType)) {
        return NULL;
    }
    TransportObject *stream = (TransportObject *)self->transport;
    return stream->dict == NULL ? stream : NULL;
}

/* Pass records on to the transport below; more: others follow.  Runs
   Python. */
static int
send_outgoing(TlsObject *self, bool more)
{
    PyObject *data =
        PyObject_CallMethodNoArgs(self->outgoing, self->state->str_read);
    Py_ssize_t size = data == NULL ? -1 : PyObject_Size(data);

    if (size <= 0) {
        Py_XDECREF(data);
        return size < 0 ? -1 : 0;
    }
    self->grown = self->grown || size > LARGE_SLICE + TLS_RECORD;
    PyObject *transport = Py_NewRef(self->transport);
    int result;
    if (stream_below(self) != NULL && PyBytes_CheckExact(data)) {
        result = Stream_write((TransportObject *)transport, data, more);
    }
    else {
        PyObject *value =
            PyObject_CallMethodOneArg(transport, self->state->str_write, data);
        result = value == NULL ? -1 : 0;
        Py_XDECREF(value);
        Py_DECREF(data);
    }
    Py_DECREF(transport);
    return result;
}

/* Flow control. */

static int
call_flow_control(TlsObject *self, PyObject *method, const char *message)
{
    PyObject *app = Py_NewRef(self->app_protocol), *transport = NULL;
    PyObject *exc, *context = NULL, *result = NULL;
    int called = Tls_call(app, method);

    Py_DECREF(app);
    if (called == 0 || is_fatal() || self->loop == NULL) {
        return called;
    }
    exc = PyErr_GetRaisedException();
    transport =
        PyObject_GetAttr((PyObject *)self, self->state->str__app_transport);
    if (transport != NULL) {
        context =
            Py_BuildValue("{s:s,s:O,s:O,s:O}", "message", message, "exception",
                          exc, "transport", transport, "protocol", self);
    }
    if (context != NULL) {
        handled_exception outer;
        begin_handling(exc, &outer);
        result = PyObject_CallMethodOneArg(
            (PyObject *)self->loop, self->state->str_call_exception_handler,
            context);
        end_handling(&outer);
    }
    Py_DECREF(exc);
    Py_XDECREF(transport);
    Py_XDECREF(context);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

static int
control_app_writing(TlsObject *self, Py_ssize_t size)
{
    if (size >= self->outgoing_high_water && !self->app_writing_paused) {
        self->app_writing_paused = true;
        return call_flow_control(self, self->state->str_pause_writing,
                                 "protocol.pause_writing() failed");
    }
    if (size <= self->outgoing_low_water && self->app_writing_paused) {
        self->app_writing_paused = false;
        return call_flow_control(self, self->state->str_resume_writing,
                                 "protocol.resume_writing() failed");
    }
    return 0;
}

int
Tls_control_app_writing(TlsObject *self)
{
    Py_ssize_t pending = Tls_pending(self->outgoing);

    return pending < 0
        ? -1
        : control_app_writing(self, pending + self->write_buffer_size);
}

int
Tls_process_outgoing(TlsObject *self)
{
    if (self->ssl_writing_paused) {
        return Tls_control_app_writing(self);
    }
    if (send_outgoing(self, false) < 0) {
        return -1;
    }
    /* Most often nothing has been left, unless that has paused us. */
    return self->ssl_writing_paused
        ? Tls_control_app_writing(self)
        : control_app_writing(self, self->write_buffer_size);
}

/* Encryption. */

/* sslobj.write(data): how much it has taken. */
static Py_ssize_t
encrypt(TlsObject *self, PyObject *data)
{
    PyObject *writer =
        Py_NewRef(self->native != NULL ? self->native : self->sslobj);
    PyObject *taken =
        PyObject_CallMethodOneArg(writer, self->state->str_write, data);
    Py_ssize_t count = taken == NULL ? -1 : PyLong_AsSsize_t(taken);

    Py_XDECREF(taken);
    Py_DECREF(writer);
    return count < 0 && !PyErr_Occurred() ? 0 : count;
}

/* So much of the first entry is encrypted. */
static int
advance(TlsObject *self, PyObject *first, Py_ssize_t size, Py_ssize_t count)
{
    PyObject *backlog = self->write_backlog;

    if (PyList_GET_SIZE(backlog) == 0 ||
        PyList_GET_ITEM(backlog, 0) != first) {
        return 0;  // The connection was lost meanwhile.
    }
    self->write_buffer_size -= Py_MIN(count, size);
    if (count >= size) {
        return PyList_SetSlice(backlog, 0, 1, NULL);
    }
    /* Of a memoryview, so that nothing is copied. */
    PyObject *view = PyMemoryView_FromObject(first);
    PyObject *rest =
        view == NULL ? NULL : PySequence_GetSlice(view, count, size);
    Py_XDECREF(view);
    return rest == NULL ? -1 : PyList_SetItem(backlog, 0, rest);
}

static int
encrypt_first(TlsObject *self)
{
    PyObject *first = Py_NewRef(PyList_GET_ITEM(self->write_backlog, 0));
    PyObject *part = NULL;
    Py_ssize_t count = -1, size = PyObject_Size(first);
    Py_ssize_t slice = self->grown ? LARGE_SLICE : SLICE;

    if (size < 0) {
        PyErr_Clear();  // Not the error that OpenSSL's wrapper has for it.
        size = 0;
    }
    if (size > slice && self->native != NULL) {
        PyObject *view = PyMemoryView_FromObject(first);
        part = view == NULL ? NULL : PySequence_GetSlice(view, 0, slice);
        Py_XDECREF(view);
    }
    else {
        part = Py_NewRef(first);
    }
    if (part != NULL) {
        count = encrypt(self, part);
    }
    int result = count < 0 ? -1 : advance(self, first, size, count);
    Py_XDECREF(part);
    Py_DECREF(first);
    return result;
}

/* Small writes become one, in memory that is free while no Python code runs.
   The number of entries that went in. */
static Py_ssize_t
join_small(TlsObject *self, char *memory, Py_ssize_t *size)
{
    PyObject *backlog = self->write_backlog;
    Py_ssize_t count = 0;

    *size = 0;
    while (count < PyList_GET_SIZE(backlog)) {
        PyObject *entry = PyList_GET_ITEM(backlog, count);
        if (!PyBytes_CheckExact(entry) ||
            PyBytes_GET_SIZE(entry) >= TLS_RECORD ||
            *size + PyBytes_GET_SIZE(entry) > SLICE) {
            break;
        }
        memcpy(memory + *size, PyBytes_AS_STRING(entry),
               (size_t)PyBytes_GET_SIZE(entry));
        *size += PyBytes_GET_SIZE(entry);
        count++;
    }
    return count;
}

static int
encrypt_joined(TlsObject *self, const char *memory, Py_ssize_t entries,
               Py_ssize_t size)
{
    PyObject *joined =
        PyMemoryView_FromMemory((char *)memory, size, PyBUF_READ);
    Py_ssize_t count = joined == NULL ? -1 : encrypt(self, joined);

    Py_XDECREF(joined);
    if (count < 0) {
        return -1;
    }
    if (count < size) {
        /* OpenSSL's way to say so is an error, and then all is to be given
           to it again. */
        PyErr_SetString(PyExc_RuntimeError, "TLS has taken a part of a write");
        return -1;
    }
    if (PyList_GET_SIZE(self->write_backlog) < entries) {
        return 0;  // The connection was lost meanwhile.
    }
    self->write_buffer_size -= size;
    return PyList_SetSlice(self->write_backlog, 0, entries, NULL);
}

static int
encrypt_some(TlsObject *self)
{
    Py_ssize_t size, entries;
    char *memory;

    if (self->native == NULL || PyList_GET_SIZE(self->write_backlog) == 1) {
        return encrypt_first(self);
    }
    memory = Tls_scratch(self);
    if (memory == NULL) {
        return -1;
    }
    entries = join_small(self, memory, &size);
    if (entries <= 1) {
        return encrypt_first(self);
    }
    return size == 0 ? PyList_SetSlice(self->write_backlog, 0, entries, NULL)
                     : encrypt_joined(self, memory, entries, size);
}

int
Tls_do_write(TlsObject *self)
{
    while (PyList_GET_SIZE(self->write_backlog) > 0) {
        if (encrypt_some(self) < 0) {
            if (!Tls_is_again(self)) {
                return -1;
            }
            break;
        }
        /* What is sent together need not be in the MemoryBIO together. */
        if (PyList_GET_SIZE(self->write_backlog) > 0 &&
            !self->ssl_writing_paused && send_outgoing(self, true) < 0) {
            return -1;
        }
        if (self->phase == TLS_UNWRAPPED) {
            return 0;  // That has ended the connection.
        }
    }
    return Tls_process_outgoing(self);
}

/* What the application writes. */

int
Tls_settle(PyObject *protocol)
{
    TlsObject *self = (TlsObject *)protocol;

    if (!self->held_back) {
        return 0;
    }
    self->held_back = false;
    if (self->phase != TLS_WRAPPED ||
        PyList_GET_SIZE(self->write_backlog) == 0 || Tls_do_write(self) == 0 ||
        Tls_fail(self) == 0) {
        return 0;
    }
    if (is_fatal() || self->loop == NULL) {
        return -1;
    }
    Loop_report(self->loop, "Fatal error on SSL protocol", "protocol",
                protocol);
    return 0;
}

/* Nobody is there any more: who does not notice is told in the log. */
static int
note_lost_write(TlsObject *self)
{
    enum { LOG_THRESHOLD = 5 }; /* LOG_THRESHOLD_FOR_CONNLOST_WRITES */

    if (self->conn_lost >= LOG_THRESHOLD) {
        PyObject *result = PyObject_CallMethod(
            self->state->logger, "warning", "s", "SSL connection is closed");
        if (result == NULL) {
            return -1;
        }
        Py_DECREF(result);
    }
    self->conn_lost++;
    return 0;
}

/* What may still change is copied; what cannot be is refused when it is its
   turn, as asyncio does. */
static int
append(TlsObject *self, PyObject *data)
{
    PyObject *entry = NULL;

    if (!PyBytes_CheckExact(data) && PyObject_CheckBuffer(data)) {
        Py_buffer view;
        if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
            PyErr_Clear();
        }
        else {
            entry = PyBytes_FromStringAndSize(view.buf, view.len);
            PyBuffer_Release(&view);
            if (entry == NULL) {
                return -1;
            }
        }
    }
    if (entry == NULL) {
        entry = Py_NewRef(data);
    }
    int result = PyList_Append(self->write_backlog, entry);
    Py_ssize_t size = result < 0 ? -1 : PyObject_Size(entry);
    Py_DECREF(entry);
    if (size < 0) {
        return -1;
    }
    self->write_buffer_size += size;
    return 0;
}

static int
append_all(TlsObject *self, PyObject *list)
{
    PyObject *iterator = PyObject_GetIter(list), *data;

    if (iterator == NULL) {
        return -1;
    }
    while ((data = PyIter_Next(iterator)) != NULL) {
        int result = append(self, data);
        Py_DECREF(data);
        if (result < 0) {
            break;
        }
    }
    Py_DECREF(iterator);
    return PyErr_Occurred() ? -1 : 0;
}

/* Can it wait for the end of the callback that runs now? */
static bool
hold_back(TlsObject *self)
{
    TransportObject *stream = stream_below(self);

    if (stream == NULL || stream->direct != &tls_direct ||
        stream->loop == NULL || !stream->loop->collecting ||
        self->ssl_writing_paused || self->write_buffer_size > MAX_HELD_BACK ||
        self->write_buffer_size >= self->outgoing_high_water) {
        return false;
    }
    self->held_back = true;
    Stream_hold_back(stream);
    return true;
}

int
Tls_write(TlsObject *self, PyObject *data, bool many)
{
    if (self->phase != TLS_WRAPPED && self->phase != TLS_DO_HANDSHAKE) {
        return note_lost_write(self);
    }
    if ((many ? append_all(self, data) : append(self, data)) < 0) {
        return -1;
    }
    if (self->phase != TLS_WRAPPED || hold_back(self) ||
        Tls_do_write(self) == 0) {
        return 0;
    }
    return Tls_fail(self);
}

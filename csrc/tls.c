/* TLS, the way in: records become what the application reads.

   Records go into the MemoryBIO in as large pieces as they come, and out of
   the SSLObject straight into the bytes object that the application gets.
   sslobj.read() says by an exception that it needs more, which costs as much
   as to decrypt a small record: the input is followed from record to record,
   so that it is only called when there is a whole one. */
#include "ouroloop.h"

/* Up to it decrypted data is copied, rather than a larger object shrunk. */
enum { SMALL_INPUT = 4 * 1024 };

/* Following the records. */

/* 1 if a part of such a record is of no use to OpenSSL, 0 if it is, and -1 if
   this is not a header that is known here. */
static int
judge_header(const uint8_t *header, size_t length)
{
    enum { FIRST_TYPE = 20, APPLICATION_DATA = 23, LAST_TYPE = 24 };

    if (header[0] < FIRST_TYPE || header[0] > LAST_TYPE || header[1] != 3 ||
        length > TLS_RECORD + 2048) {
        return -1;
    }
    /* A longer one may be refused by its header alone. */
    return header[0] == APPLICATION_DATA && header[2] != 0 && length > 0 &&
        length <= TLS_RECORD + 256;
}

static void
follow(record_tracker *records, const char *data, size_t size)
{
    size_t header_size = sizeof(records->header);

    while (records->followed && size > 0) {
        if (records->missing > 0) {
            size_t part = Py_MIN(size, records->missing);
            records->missing -= part;
            records->incomplete += records->incomplete > 0 ? part : 0;
            data += part;
            size -= part;
        }
        else {
            records->header[records->header_size++] = (uint8_t)*data++;
            size--;
            if (records->header_size < header_size) {
                continue;
            }
            records->header_size = 0;
            records->missing =
                (size_t)records->header[3] << 8 | records->header[4];
            int useless = judge_header(records->header, records->missing);
            records->followed = useless >= 0;
            records->incomplete = useless > 0 ? header_size : 0;
        }
        if (records->missing == 0) {
            records->incomplete = 0;
        }
    }
    if (!records->followed) {
        records->incomplete = 0;
    }
}

/* Decryption. */

/* How much input could be decrypted, at most; 0: none, -1: exception. */
static Py_ssize_t
readable(TlsObject *self)
{
    Py_ssize_t size;

    if (self->leftover) {
        PyObject *number =
            PyObject_CallMethodNoArgs(self->native, self->state->str_pending);
        size = number == NULL ? -1 : PyLong_AsSsize_t(number);
        Py_XDECREF(number);
        if (size != 0) {
            return size;
        }
        self->leftover = false;
    }
    size = Tls_pending(self->incoming);
    return size <= (Py_ssize_t)self->records.incomplete && size >= 0 ? 0
                                                                     : size;
}

/* sslobj.read(size, buffer): 0 at the end of it all, -1 with an exception. */
static Py_ssize_t
read_into(TlsObject *self, Py_ssize_t size, PyObject *buffer)
{
    PyObject *reader =
        Py_NewRef(self->native != NULL ? self->native : self->sslobj);
    PyObject *number = PyLong_FromSsize_t(size), *taken = NULL;

    if (number != NULL) {
        PyObject *args[] = {reader, number, buffer};
        taken =
            PyObject_VectorcallMethod(self->state->str_read, args, 3, NULL);
        Py_DECREF(number);
    }
    Py_DECREF(reader);
    Py_ssize_t count = taken == NULL ? -1 : PyLong_AsSsize_t(taken);
    Py_XDECREF(taken);
    self->leftover = count == size;
    return count;
}

static Py_ssize_t
read_into_memory(TlsObject *self, char *memory, Py_ssize_t size)
{
    PyObject *view = PyMemoryView_FromMemory(memory, size, PyBUF_WRITE);
    Py_ssize_t count = view == NULL ? -1 : read_into(self, size, view);

    Py_XDECREF(view);
    return count;
}

/* One call of sslobj.read() for each record, until there is none.  The bytes
   read; *ended: the peer has said that it sends no more. */
static Py_ssize_t
read_records(TlsObject *self, char *memory, Py_ssize_t size, bool *ended)
{
    Py_ssize_t used = 0;

    while (used < size) {
        Py_ssize_t count = read_into_memory(self, memory + used, size - used);
        if (count < 0) {
            return Tls_is_again(self) ? used : -1;
        }
        if (count == 0) {
            *ended = true;
            return used;
        }
        used += count;
        count = readable(self);
        if (count <= 0) {
            return count < 0 ? -1 : used;
        }
    }
    return used;
}

/* All that can be decrypted now, in *data: new, or NULL if that is nothing. */
static int
decrypt(TlsObject *self, PyObject **data, bool *ended)
{
    Py_ssize_t input = readable(self), size, used;
    char *memory;

    if (input <= 0) {
        return input < 0 ? -1 : 0;
    }
    if (input <= SMALL_INPUT) {
        memory = Tls_scratch(self);
        size = STREAM_MAX_READ;
    }
    else {
        /* The rest of a record may be inside of OpenSSL. */
        size = input + 2 * TLS_RECORD;
        *data = PyBytes_FromStringAndSize(NULL, size);
        memory = *data == NULL ? NULL : PyBytes_AS_STRING(*data);
    }
    used = memory == NULL ? -1 : read_records(self, memory, size, ended);
    if (used <= 0) {
        Py_CLEAR(*data);
        return used < 0 ? -1 : 0;
    }
    if (*data == NULL) {
        *data = PyBytes_FromStringAndSize(memory, used);
        return *data == NULL ? -1 : 0;
    }
    return _PyBytes_Resize(data, used);
}

/* The same by the methods of an SSLObject that is not quite ssl's own. */
static int
decrypt_by_methods(TlsObject *self, PyObject **data, bool *ended)
{
    PyObject *pieces = PyList_New(0), *empty = NULL;
    int result = -1;

    while (pieces != NULL) {
        PyObject *piece = PyObject_CallMethod(self->sslobj, "read", "i",
                                              (int)STREAM_MAX_READ);
        int any = piece == NULL ? -1 : PyObject_IsTrue(piece);
        if (any > 0) {
            any = PyList_Append(pieces, piece) < 0 ? -1 : 1;
        }
        Py_XDECREF(piece);
        if (any > 0) {
            continue;
        }
        *ended = any == 0;
        result = any == 0 || Tls_is_again(self) ? 0 : -1;
        break;
    }
    if (result == 0 && PyList_GET_SIZE(pieces) > 0) {
        empty = PyBytes_FromStringAndSize(NULL, 0);
        *data = empty == NULL
            ? NULL
            : PyObject_CallMethod(empty, "join", "O", pieces);
        result = *data == NULL ? -1 : 0;
    }
    Py_XDECREF(empty);
    Py_XDECREF(pieces);
    return result;
}

/* Handing on. */

static int feed(PyObject *protocol, char *data, size_t size);

/* data_received(), or what stands for it where TLS is inside of TLS. */
static int
deliver(TlsObject *self, PyObject *data)
{
    PyObject *app = Py_NewRef(self->app_protocol);
    int result;

    if (self->app_protocol_is_buffer) {
        result =
            feed(app, PyBytes_AS_STRING(data), (size_t)PyBytes_GET_SIZE(data));
    }
    else {
        result = Streams_feed(self->state, app, PyBytes_AS_STRING(data),
                              PyBytes_GET_SIZE(data));
        if (result == 0) {
            PyObject *value = PyObject_CallMethodOneArg(
                app, self->state->str_data_received, data);
            result = value == NULL ? -1 : 0;
            Py_XDECREF(value);
        }
        result = Py_MIN(result, 0);
    }
    Py_DECREF(app);
    return result;
}

/* The peer ends the connection, and asks us to. */
static int
end_of_input(TlsObject *self)
{
    return Tls_call((PyObject *)self, self->state->str__call_eof_received) < 0
        ? -1
        : Tls_call((PyObject *)self, self->state->str__start_shutdown);
}

static int
read_copied(TlsObject *self)
{
    PyObject *data = NULL;
    bool ended = false;
    int result = self->native != NULL
        ? decrypt(self, &data, &ended)
        : decrypt_by_methods(self, &data, &ended);

    if (result == 0 && data != NULL) {
        result = deliver(self, data);
    }
    Py_XDECREF(data);
    return result == 0 && ended ? end_of_input(self) : result;
}

/* Fill the buffer from this offset on; returns what read_into() does. */
static Py_ssize_t
read_at(TlsObject *self, PyObject *buffer, Py_ssize_t offset, Py_ssize_t size)
{
    if (offset == 0) {
        return read_into(self, size, buffer);
    }
    PyObject *view = PyMemoryView_FromObject(buffer);
    PyObject *rest =
        view == NULL ? NULL : PySequence_GetSlice(view, offset, size);
    Py_ssize_t count =
        rest == NULL ? -1 : read_into(self, size - offset, rest);
    Py_XDECREF(rest);
    Py_XDECREF(view);
    return count;
}

/* As much as the application's buffer takes.  *ended as above. */
static Py_ssize_t
fill(TlsObject *self, PyObject *buffer, Py_ssize_t size, bool *ended)
{
    Py_ssize_t offset = 0;

    do {
        /* An empty buffer reads nothing, which is taken for the end. */
        Py_ssize_t more =
            self->native != NULL && size > 0 ? readable(self) : 1;
        if (more <= 0) {
            return more < 0 ? -1 : offset;
        }
        Py_ssize_t count = read_at(self, buffer, offset, size);
        if (count < 0) {
            return Tls_is_again(self) ? offset : -1;
        }
        if (count == 0) {
            *ended = true;
            return offset;
        }
        offset += count;
    } while (offset < size);
    return offset;
}

/* There may be more than went into the buffer. */
static int
read_again_soon(TlsObject *self)
{
    PyObject *method =
        PyObject_GetAttr((PyObject *)self, self->state->str__do_read);
    PyObject *handle = method == NULL || self->loop == NULL
        ? NULL
        : PyObject_CallMethodOneArg((PyObject *)self->loop,
                                    self->state->str_call_soon, method);

    Py_XDECREF(method);
    Py_XDECREF(handle);
    return handle == NULL && PyErr_Occurred() ? -1 : 0;
}

static int
read_buffered(TlsObject *self)
{
    PyObject *buffer = NULL, *number;
    bool ended = false;
    int result = -1;
    Py_ssize_t hint = Tls_pending(self->incoming), size, count;

    number = hint < 0 ? NULL : PyLong_FromSsize_t(hint);
    if (number == NULL) {
        return -1;
    }
    buffer = PyObject_CallOneArg(self->app_protocol_get_buffer, number);
    Py_DECREF(number);
    size = buffer == NULL ? -1 : PyObject_Size(buffer);
    count = size < 0 ? -1 : fill(self, buffer, size, &ended);
    if (count < 0 || (count == size && !ended && read_again_soon(self) < 0)) {
        goto done;
    }
    /* Drop it first: the application may want to resize it. */
    Py_CLEAR(buffer);
    result = 0;
    if (count > 0) {
        number = PyLong_FromSsize_t(count);
        PyObject *value = number == NULL
            ? NULL
            : PyObject_CallOneArg(self->app_protocol_buffer_updated, number);
        result = value == NULL ? -1 : 0;
        Py_XDECREF(number);
        Py_XDECREF(value);
    }
    if (result == 0 && ended) {
        result = end_of_input(self);
    }
done:
    Py_XDECREF(buffer);
    return result;
}

int
Tls_control_ssl_reading(TlsObject *self)
{
    Py_ssize_t size = Tls_pending(self->incoming);

    if (size < 0) {
        return -1;
    }
    if (size >= self->incoming_high_water && !self->ssl_reading_paused) {
        self->ssl_reading_paused = true;
        return Tls_call(self->transport, self->state->str_pause_reading);
    }
    if (size <= self->incoming_low_water && self->ssl_reading_paused) {
        self->ssl_reading_paused = false;
        return Tls_call(self->transport, self->state->str_resume_reading);
    }
    return 0;
}

/* Does the application read by buffers, and is it not TLS again? */
static bool
is_buffered(TlsObject *self)
{
    return self->app_protocol_is_buffer &&
        !(self->native != NULL &&
          PyObject_TypeCheck(self->app_protocol,
                             self->state->TlsProtocolType));
}

static int
read_and_answer(TlsObject *self)
{
    if (!self->app_reading_paused) {
        if ((is_buffered(self) ? read_buffered(self) : read_copied(self)) <
            0) {
            return -1;
        }
        if ((PyList_GET_SIZE(self->write_backlog) > 0
                 ? Tls_do_write(self)
                 : Tls_process_outgoing(self)) < 0) {
            return -1;
        }
    }
    return Tls_control_ssl_reading(self);
}

int
Tls_do_read(TlsObject *self)
{
    if (self->phase != TLS_WRAPPED && self->phase != TLS_FLUSHING) {
        return 0;
    }
    return read_and_answer(self) == 0 ? 0 : Tls_fail(self);
}

/* From below. */

static int
advance(TlsObject *self)
{
    PyObject *protocol = (PyObject *)self;

    switch (self->phase) {
    case TLS_WRAPPED:
        return Tls_do_read(self);
    case TLS_DO_HANDSHAKE:
        return Tls_call(protocol, self->state->str__do_handshake);
    case TLS_FLUSHING:
        return Tls_call(protocol, self->state->str__do_flush);
    case TLS_SHUTDOWN:
        return Tls_call(protocol, self->state->str__do_shutdown);
    case TLS_UNWRAPPED:
        break;
    }
    return 0;
}

static int
feed(PyObject *protocol, char *data, size_t size)
{
    TlsObject *self = (TlsObject *)protocol;
    PyObject *incoming = Py_NewRef(self->incoming), *result = NULL;

    if (!self->started) {
        /* What others have put in before is not known here. */
        Py_ssize_t before = Tls_pending(incoming);
        if (before < 0) {
            Py_DECREF(incoming);
            return -1;
        }
        self->started = true;
        self->records.followed = before == 0;
    }
    follow(&self->records, data, size);
    PyObject *view =
        PyMemoryView_FromMemory(data, (Py_ssize_t)size, PyBUF_READ);
    if (view != NULL) {
        result =
            PyObject_CallMethodOneArg(incoming, self->state->str_write, view);
        Py_DECREF(view);
    }
    Py_XDECREF(result);
    Py_DECREF(incoming);
    return result == NULL ? -1 : advance(self);
}

const direct_protocol tls_direct = {.feed = feed, .settle = Tls_settle};

/* Bytes in and out of a connected stream socket.

   In: one recv() for each time the kernel reports input, handed on to the
   protocol right there.  Out: what is written while a callback runs is sent
   by one system call when it ends (Stream_flush), for most messages are
   written in parts; only then is known what the kernel did not take, and
   only for that is the socket watched and the protocol paused. */
#include "ouroloop.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/uio.h>

enum {
    MAX_READ = 256 * 1024,     /* as asyncio's max_size */
    SMALL_READ = 4 * 1024,     /* below it a copy is cheaper than a resize */
    MAX_UNFLUSHED = 64 * 1024, /* held back until a callback ends */
    MAX_PARTS = 256            /* chunks per system call */
};

/* The write queue: bytes objects, oldest first. */

static PyObject **
queue_chunks(write_queue *queue)
{
    return queue->heap != NULL ? queue->heap : queue->inlined;
}

static int
queue_make_room(write_queue *queue)
{
    PyObject **chunks = queue_chunks(queue);
    uint32_t capacity =
        queue->heap != NULL ? queue->capacity : WRITE_QUEUE_INLINED;

    if (queue->head + queue->count < capacity) {
        return 0;
    }
    if (queue->head > capacity / 2) {
        memmove(chunks, chunks + queue->head,
                queue->count * sizeof(PyObject *));
        queue->head = 0;
        return 0;
    }
    PyObject **heap = PyMem_New(PyObject *, (size_t)capacity * 4);
    if (heap == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    memcpy(heap, chunks + queue->head, queue->count * sizeof(PyObject *));
    PyMem_Free(queue->heap);
    queue->heap = heap;
    queue->capacity = capacity * 4;
    queue->head = 0;
    return 0;
}

/* Steals the reference, also on failure. */
static int
queue_append(TransportObject *self, PyObject *bytes)
{
    write_queue *queue = &self->queue;

    if (queue_make_room(queue) < 0) {
        Py_DECREF(bytes);
        return -1;
    }
    queue_chunks(queue)[queue->head + queue->count++] = bytes;
    self->unsent += (size_t)PyBytes_GET_SIZE(bytes);
    return 0;
}

/* So many bytes are gone. */
static void
queue_advance(TransportObject *self, size_t size)
{
    write_queue *queue = &self->queue;
    PyObject **chunks = queue_chunks(queue);

    self->unsent -= size;
    size += queue->sent;
    while (queue->count > 0) {
        PyObject *first = chunks[queue->head];
        if ((size_t)PyBytes_GET_SIZE(first) > size) {
            break;
        }
        size -= (size_t)PyBytes_GET_SIZE(first);
        queue->head++;
        queue->count--;
        Py_DECREF(first);
    }
    queue->sent = size;
    if (queue->count == 0) {
        queue->head = 0;
        PyMem_Free(queue->heap);
        queue->heap = NULL;
    }
}

static void
Stream_discard(TransportObject *self)
{
    queue_advance(self, self->unsent);
}

/* Out. */

/* As send(), of as many chunks as go into one call. */
static ssize_t
send_some(TransportObject *self)
{
    write_queue *queue = &self->queue;
    PyObject **chunks = queue_chunks(queue) + queue->head;
    struct iovec parts[MAX_PARTS];
    struct msghdr message = {.msg_iov = parts};
    ssize_t sent;

    parts[0].iov_base = PyBytes_AS_STRING(chunks[0]) + queue->sent;
    parts[0].iov_len = (size_t)PyBytes_GET_SIZE(chunks[0]) - queue->sent;
    if (queue->count == 1) {
        do {
            sent = send(self->fd, parts[0].iov_base, parts[0].iov_len,
                        COMPAT_MSG_NOSIGNAL);
        } while (sent < 0 && errno == EINTR);
        return sent;
    }
    message.msg_iovlen = queue->count < MAX_PARTS ? queue->count : MAX_PARTS;
    for (size_t i = 1; i < (size_t)message.msg_iovlen; i++) {
        parts[i].iov_base = PyBytes_AS_STRING(chunks[i]);
        parts[i].iov_len = (size_t)PyBytes_GET_SIZE(chunks[i]);
    }
    do {
        sent = sendmsg(self->fd, &message, COMPAT_MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    return sent;
}

/* The set exception ends the connection.  Runs Python. */
static int
fail_write(TransportObject *self)
{
    PyObject *exc = PyErr_GetRaisedException();
    PyObject *waiter = Py_XNewRef(self->empty_waiter);

    Stream_discard(self);
    self->writing = false;
    PyErr_SetRaisedException(Py_NewRef(exc));
    int result =
        Transport_fatal_error(self, "Fatal write error on socket transport");
    if (waiter != NULL && result == 0) {
        result = Transport_fail_waiter(waiter, exc);
    }
    Py_XDECREF(waiter);
    Py_DECREF(exc);
    return result;
}

static int
shut_down(TransportObject *self)
{
    if (self->eof_sent) {
        return 0;
    }
    self->eof_sent = true;
    if (shutdown(self->fd, SHUT_WR) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    return 0;
}

/* All is sent: do what waited for that. */
static int
drained(TransportObject *self)
{
    if (self->empty_waiter != NULL &&
        Future_resolve(self->loop, self->empty_waiter, Py_None) < 0) {
        return -1;
    }
    if (self->closing) {
        return Transport_drained(self);
    }
    if (self->eof && shut_down(self) < 0) {
        return Transport_fatal_error(self, "Fatal error on transport");
    }
    return 0;
}

/* Send what the kernel takes and watch for more room if that is not all.  -1
   only with an exception that must leave run_forever().  Runs Python if the
   connection is broken. */
static int
send_queue(TransportObject *self)
{
    while (self->queue.count > 0) {
        size_t before = self->unsent;
        uint32_t count = self->queue.count;
        ssize_t sent = send_some(self);
        if (sent < 0) {
            if (errno == EAGAIN || errno == EWOULDBLOCK) {
                break;
            }
            PyErr_SetFromErrno(PyExc_OSError);
            return fail_write(self);
        }
        queue_advance(self, (size_t)sent);
        if ((size_t)sent < before && count <= MAX_PARTS) {
            break;  // It took a part of what it was given: it is full.
        }
    }
    if (self->queue.count > 0 && !self->writing) {
        self->writing = true;
        return Transport_watch(self);
    }
    return 0;
}

/* Send what was held back; with the kernel full nothing is. */
static int
Stream_settle(TransportObject *self)
{
    if (self->queue.count == 0 || self->writing) {
        return 0;
    }
    if (send_queue(self) < 0) {
        return -1;
    }
    return Transport_maybe_pause(self);
}

void
Stream_flush(LoopObject *loop)
{
    /* What the callback raised is on its way to run_forever()'s caller. */
    PyObject *raised = PyErr_GetRaisedException();

    while (loop->unflushed != NULL) {
        TransportObject *self = loop->unflushed;
        loop->unflushed = self->next_unflushed;
        self->next_unflushed = NULL;
        self->held_back = false;
        int result = 0;
        if (self->queue.count > 0 && !self->writing) {
            result = send_queue(self);
        }
        if (result == 0 && self->unsent > self->high_water) {
            int entered = Transport_enter(self);
            result = Transport_maybe_pause(self);
            if (Transport_leave(self, entered) < 0) {
                result = -1;
            }
        }
        if (result < 0) {
            Loop_fail(loop);
        }
        Py_DECREF(self);
    }
    if (raised != NULL) {
        PyErr_SetRaisedException(raised);
    }
}

/* Hold it back until the end of the callback that runs now, or send it. */
static int
send_later(TransportObject *self)
{
    LoopObject *loop = self->loop;
    size_t limit =
        self->high_water < MAX_UNFLUSHED ? self->high_water : MAX_UNFLUSHED;

    if (self->writing) {
        return Transport_maybe_pause(self);
    }
    if (!loop->collecting || self->unsent > limit) {
        return Stream_settle(self);
    }
    if (!self->held_back) {
        self->held_back = true;
        Py_INCREF(self);
        if (loop->unflushed == NULL) {
            loop->unflushed = self;
        }
        else {
            loop->last_unflushed->next_unflushed = self;
        }
        loop->last_unflushed = self;
    }
    return 0;
}

/* The kernel has room again. */
static int
write_ready(TransportObject *self)
{
    if (self->conn_lost || !self->writing) {
        return 0;
    }
    if (self->queue.count > 0 && send_queue(self) < 0) {
        return -1;
    }
    if (self->conn_lost) {
        return 0;  // The connection is broken.
    }
    if (self->queue.count == 0) {
        self->writing = false;
    }
    /* May write more. */
    if (Transport_maybe_resume(self) < 0) {
        return -1;
    }
    if (self->queue.count > 0 || self->loop == NULL) {
        return 0;
    }
    return drained(self);
}

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

/* 1 if nothing can be written any more; who does not notice is told in the
   log.  -1 with an exception. */
static int
is_lost(TransportObject *self)
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

static PyObject *
StreamTransport_write(TransportObject *self, PyObject *data)
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
    int lost = is_lost(self);
    if (lost < 0) {
        return NULL;
    }
    if (lost) {
        Py_RETURN_NONE;
    }
    /* What may still change is copied. */
    PyObject *bytes =
        PyBytes_Check(data) ? Py_NewRef(data) : PyBytes_FromObject(data);
    if (bytes == NULL || queue_append(self, bytes) < 0 ||
        send_later(self) < 0) {
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
        empty == NULL ? NULL : PyObject_CallMethod(empty, "join", "O", list);

    Py_XDECREF(empty);
    return joined;
}

/* A list of bytes objects, checked as memoryview() checks. */
static PyObject *
as_bytes_list(PyObject *iterable)
{
    PyObject *list = PySequence_List(iterable);

    for (Py_ssize_t i = 0; list != NULL && i < PyList_GET_SIZE(list); i++) {
        PyObject *item = PyList_GET_ITEM(list, i);
        if (PyBytes_CheckExact(item)) {
            continue;
        }
        PyObject *view = PyMemoryView_FromObject(item);
        PyObject *bytes = view == NULL ? NULL : PyBytes_FromObject(view);
        Py_XDECREF(view);
        if (bytes == NULL) {
            Py_CLEAR(list);
            break;
        }
        PyList_SetItem(list, i, bytes);
    }
    return list;
}

static PyObject *
StreamTransport_writelines(TransportObject *self, PyObject *chunks)
{
    PyObject *result = NULL, *list = NULL;

    if (COMPAT_WRITELINES_JOINS) {
        PyObject *joined = join(chunks);
        if (joined != NULL) {
            result = StreamTransport_write(self, joined);
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
    list = as_bytes_list(chunks);
    if (list == NULL) {
        return NULL;
    }
    int lost = is_lost(self);
    if (lost != 0) {
        result = lost < 0 ? NULL : Py_NewRef(Py_None);
        goto done;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++) {
        PyObject *bytes = PyList_GET_ITEM(list, i);
        if (PyBytes_GET_SIZE(bytes) > 0 &&
            queue_append(self, Py_NewRef(bytes)) < 0) {
            goto done;
        }
    }
    if (self->unsent == 0 || send_later(self) == 0) {
        result = Py_NewRef(Py_None);
    }
done:
    Py_DECREF(list);
    return result;
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
        shut_down(self) < 0) {
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

/* In. */

/* As recv(): -1 with errno. */
static ssize_t
receive(TransportObject *self, void *buffer, size_t size)
{
    ssize_t count;

    do {
        count = recv(self->fd, buffer, size, 0);
    } while (count < 0 && errno == EINTR);
    return count;
}

/* recv() failed.  Runs Python. */
static int
fail_read(TransportObject *self)
{
    if (errno == EAGAIN || errno == EWOULDBLOCK) {
        return 0;
    }
    PyErr_SetFromErrno(PyExc_OSError);
    return Transport_fatal_error(self, "Fatal read error on socket transport");
}

/* The peer has ended its half.  Runs Python. */
static int
read_eof(TransportObject *self)
{
    if (self->loop->debug &&
        Transport_log(self, "%r received EOF", NULL, NULL) < 0) {
        return -1;
    }
    PyObject *keep_open =
        Transport_call(self, self->state->str_eof_received, NULL);
    int truth = keep_open == NULL ? -1 : PyObject_IsTrue(keep_open);
    Py_XDECREF(keep_open);
    if (truth < 0) {
        return Transport_fatal_error(
            self, "Fatal error: protocol.eof_received() call failed.");
    }
    if (truth) {
        /* Nothing more can come, but the protocol may go on writing. */
        self->reading = false;
        return 0;
    }
    return Transport_close(self);
}

/* Learn from a read how large the next one should be: 0 for the shared
   buffer and a copy, else that of a bytes object to read into. */
static void
adapt(TransportObject *self, size_t count)
{
    if (count < SMALL_READ) {
        self->large_reads = 0;
        self->read_size /= 2;
        if (self->read_size < SMALL_READ) {
            self->read_size = 0;
        }
        return;
    }
    if (self->read_size == 0) {
        /* One large message among small ones is no reason. */
        if (++self->large_reads < 2) {
            return;
        }
        self->read_size = 4 * SMALL_READ;
    }
    while (self->read_size <= count && self->read_size < self->max_size) {
        self->read_size *= 2;
    }
}

/* New bytes object with the input, of size 0 at the end of it.  NULL with an
   exception, or with errno and without. */
static PyObject *
read_bytes(TransportObject *self)
{
    LoopObject *loop = self->loop;
    PyObject *data = NULL;
    ssize_t count;
    size_t size = self->read_size;

    if (size > 0) {
        data = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
        if (data == NULL) {
            return NULL;
        }
        count = receive(self, PyBytes_AS_STRING(data), size);
        if (count < 0) {
            int err = errno;
            Py_DECREF(data);
            errno = err;
            return NULL;
        }
        if ((size_t)count < size && _PyBytes_Resize(&data, count) < 0) {
            return NULL;
        }
    }
    else {
        if (loop->read_buffer == NULL) {
            loop->read_buffer = PyMem_Malloc(MAX_READ);
            if (loop->read_buffer == NULL) {
                return PyErr_NoMemory();
            }
        }
        count = receive(self, loop->read_buffer,
                        self->max_size < MAX_READ ? self->max_size : MAX_READ);
        if (count < 0) {
            return NULL;
        }
        data = PyBytes_FromStringAndSize(loop->read_buffer, count);
        if (data == NULL) {
            return NULL;
        }
    }
    adapt(self, (size_t)count);
    return data;
}

static int
read_data(TransportObject *self)
{
    PyObject *data = read_bytes(self);

    if (data == NULL) {
        return PyErr_Occurred()
            ? Transport_fatal_error(self,
                                    "Fatal read error on socket transport")
            : fail_read(self);
    }
    if (PyBytes_GET_SIZE(data) == 0) {
        Py_DECREF(data);
        return read_eof(self);
    }
    PyObject *result =
        Transport_call(self, self->state->str_data_received, data);
    Py_DECREF(data);
    if (result == NULL) {
        return Transport_fatal_error(
            self, "Fatal error: protocol.data_received() call failed.");
    }
    Py_DECREF(result);
    return 0;
}

/* The protocol's own buffer, writable, in *view.  1, or as the end of it
   all: 0 after an error, -1 with an exception that leaves run_forever(). */
static int
get_buffer(TransportObject *self, Py_buffer *view)
{
    PyObject *size = NULL, *buffer = NULL;
    int result;

    size = PyLong_FromLong(-1);
    if (size != NULL) {
        buffer = Transport_call(self, self->state->str_get_buffer, size);
        Py_DECREF(size);
    }
    Py_ssize_t length = buffer == NULL ? -1 : PyObject_Size(buffer);
    if (length == 0) {
        PyErr_SetString(PyExc_RuntimeError,
                        "get_buffer() returned an empty buffer");
    }
    if (length <= 0) {
        result = Transport_fatal_error(
            self, "Fatal error: protocol.get_buffer() call failed.");
    }
    else if (PyObject_GetBuffer(buffer, view, PyBUF_WRITABLE) < 0) {
        result = Transport_fatal_error(self,
                                       "Fatal read error on socket transport");
    }
    else {
        result = 1;
    }
    Py_XDECREF(buffer);
    return result;
}

static int
read_into_protocol(TransportObject *self)
{
    Py_buffer view;
    int ready = get_buffer(self, &view);

    if (ready <= 0) {
        return ready;
    }
    ssize_t count = self->open ? receive(self, view.buf, (size_t)view.len) : 0;
    int err = errno;
    PyBuffer_Release(&view);
    if (!self->open) {
        return 0;
    }
    if (count < 0) {
        errno = err;
        return fail_read(self);
    }
    if (count == 0) {
        return read_eof(self);
    }
    PyObject *size = PyLong_FromSsize_t(count);
    PyObject *result = size == NULL
        ? NULL
        : Transport_call(self, self->state->str_buffer_updated, size);
    Py_XDECREF(size);
    if (result == NULL) {
        return Transport_fatal_error(
            self, "Fatal error: protocol.buffer_updated() call failed.");
    }
    Py_DECREF(result);
    return 0;
}

static int
read_ready(TransportObject *self)
{
    if (self->conn_lost || !self->reading) {
        return 0;
    }
    return self->buffered ? read_into_protocol(self) : read_data(self);
}

/* Events. */

/* In debug mode the work is a Handle, as on stock asyncio: timed, named in the
   log if slow. */
static int
queue_method(TransportObject *self, const char *name)
{
    LoopObject *loop = self->loop;
    PyObject *method = PyObject_GetAttrString((PyObject *)self, name);
    HandleObject *handle = method == NULL
        ? NULL
        : Handle_new(loop, method, NULL, 0, self->context);
    int result = handle == NULL ? -1
                                : Ready_push(&loop->ready, READY_HANDLE,
                                             (PyObject *)handle, NULL, NULL);

    Py_XDECREF(method);
    Py_XDECREF(handle);
    return result;
}

static int
dispatch(TransportObject *self, int events)
{
    int result = 0;

    if (self->loop->debug) {
        if (events & UV_READABLE) {
            result = queue_method(self, "_read_ready");
        }
        if (result == 0 && (events & UV_WRITABLE)) {
            result = queue_method(self, "_write_ready");
        }
        return result;
    }
    int entered = Transport_enter(self);
    if (entered < 0) {
        return -1;
    }
    /* Each runs Python; both look at the state first. */
    if (events & UV_READABLE) {
        result = read_ready(self);
    }
    if (result == 0 && (events & UV_WRITABLE) && self->loop != NULL) {
        result = write_ready(self);
    }
    if (Transport_leave(self, entered) < 0) {
        result = -1;
    }
    return result;
}

static void
on_event(uv_poll_t *uv, int status, int events)
{
    TransportObject *self = CONTAINER_OF(uv, TransportObject, uv);
    LoopObject *loop = CONTAINER_OF(uv->loop, LoopObject, uv);

    Loop_enter(loop);
    if (!self->open || self->loop == NULL) {
        return;
    }
    if (status < 0) {
        /* POLLERR, and libuv has stopped the watcher.  recv() and send()
           know the error. */
        self->watched = 0;
        events = UV_READABLE | UV_WRITABLE;
    }
    bool unwanted = (events & UV_READABLE) && !self->reading;
    bool collecting = loop->collecting;
    Py_INCREF(self);
    loop->collecting = true;
    int result = dispatch(self, events);
    if (result < 0) {
        Loop_fail(loop);
    }
    loop->collecting = collecting;
    if (loop->unflushed != NULL) {
        Stream_flush(loop);
    }
    if (unwanted || (self->watched & UV_WRITABLE && !self->writing)) {
        result = Transport_unwatch(self);
    }
    else {
        result = Transport_watch(self);
    }
    if (result < 0) {
        Loop_report(loop, "Cannot watch the connection", "transport",
                    (PyObject *)self);
    }
    Py_DECREF(self);
}

static PyObject *
StreamTransport__read_ready(TransportObject *self,
                            PyObject *Py_UNUSED(ignored))
{
    if (self->loop == NULL || !self->open || read_ready(self) == 0) {
        Py_RETURN_NONE;
    }
    return NULL;
}

static PyObject *
StreamTransport__write_ready(TransportObject *self,
                             PyObject *Py_UNUSED(ignored))
{
    if (self->loop == NULL || !self->open || write_ready(self) == 0) {
        Py_RETURN_NONE;
    }
    return NULL;
}

/* Making one. */

static const transport_ops stream_ops = {
    .on_event = on_event,
    .flush = Stream_settle,
    .discard = Stream_discard,
    .abandon = Transport_abandon,
};

PyObject *
Stream_new(const transport_origin *from)
{
    PyTypeObject *type = from->loop->state->StreamTransportType;
    TransportObject *self = (TransportObject *)type->tp_alloc(type, 0);

    if (self == NULL) {
        return NULL;
    }
    self->ops = &stream_ops;
    self->max_size = MAX_READ;
    if (Transport_open(self, from) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
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
    PyObject *given[6], *result;

    if (parse_args(self->state, &spec, args, nargs, kwnames, given) < 0 ||
        Fds_ensure_free(self, given[0]) < 0) {
        return NULL;
    }
    for (int i = 2; i < 6; i++) {
        if (given[i] == Py_None) {
            given[i] = NULL;
        }
    }
    int fd = PyObject_AsFileDescriptor(given[0]);
    if (fd < 0) {
        return NULL;
    }
    result = PyObject_CallOneArg(self->state->_set_nodelay, given[0]);
    if (result == NULL) {
        return NULL;
    }
    Py_DECREF(result);
    transport_origin from = {
        .loop = self,
        .fd = fd,
        .sock = given[0],
        .protocol = given[1],
        .waiter = given[2],
        .extra = given[3],
        .server = given[4],
        .context = given[5],
    };
    return Stream_new(&from);
}

PyDoc_STRVAR(StreamTransport_doc,
"A connected stream socket; see asyncio.Transport.");
PyDoc_STRVAR(write_doc,
"write($self, data, /)\n--\n\n"
"Send bytes, a bytearray or a memoryview; what is written in one callback\n"
"goes out together when it ends.\n\n"
"Raise TypeError for anything else, RuntimeError after write_eof().");
PyDoc_STRVAR(writelines_doc,
"writelines($self, list_of_data, /)\n--\n\n"
"write() each of them.");
PyDoc_STRVAR(write_eof_doc,
"write_eof($self, /)\n--\n\n"
"End the outgoing half of the connection once what was written is sent.\n\n"
"Raise OSError if the kernel refuses.");
PyDoc_STRVAR(can_write_eof_doc,
"can_write_eof($self, /)\n--\n\n"
"Return True.");

static PyMethodDef StreamTransport_methods[] = {
    {"write", (PyCFunction)StreamTransport_write, METH_O, write_doc},
    {"writelines", (PyCFunction)StreamTransport_writelines, METH_O,
     writelines_doc},
    {"write_eof", (PyCFunction)StreamTransport_write_eof, METH_NOARGS,
     write_eof_doc},
    {"can_write_eof", (PyCFunction)StreamTransport_can_write_eof, METH_NOARGS,
     can_write_eof_doc},
    {"_make_empty_waiter", (PyCFunction)StreamTransport__make_empty_waiter,
     METH_NOARGS, NULL},
    {"_reset_empty_waiter", (PyCFunction)StreamTransport__reset_empty_waiter,
     METH_NOARGS, NULL},
    {"_read_ready", (PyCFunction)StreamTransport__read_ready, METH_NOARGS,
     NULL},
    {"_write_ready", (PyCFunction)StreamTransport__write_ready, METH_NOARGS,
     NULL},
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
    PyObject *bases = PyTuple_Pack(2, state->TransportType, state->Transport);
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

/* Bytes out of a stream transport.

   What is written while a callback runs is sent by one system call when it
   ends (Stream_flush), for most messages are written in parts.  Only then is
   known what the kernel did not take, and only for that is the socket watched
   and the protocol paused. */
#include "ouroloop.h"

#include <errno.h>
#include <sys/uio.h>

enum { MAX_PARTS = 256 }; /* chunks per system call */

/* The write queue: objects of exactly the type bytes, oldest first. */

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

PyObject *
Stream_copy(PyObject *data)
{
    Py_buffer view;

    if (PyBytes_CheckExact(data)) {
        return Py_NewRef(data);
    }
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
        return NULL;
    }
    PyObject *bytes = PyBytes_FromStringAndSize(view.buf, view.len);
    PyBuffer_Release(&view);
    return bytes;
}

int
Stream_queue(TransportObject *self, PyObject *bytes)
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

void
Stream_discard(TransportObject *self)
{
    queue_advance(self, self->unsent);
}

/* Out. */

ssize_t
Stream_send(int fd, struct iovec *parts, size_t count)
{
    if (count == 1) {
        return send(fd, parts[0].iov_base, parts[0].iov_len,
                    COMPAT_MSG_NOSIGNAL);
    }
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = count};
    return sendmsg(fd, &message, COMPAT_MSG_NOSIGNAL);
}

/* Of as many chunks as go into one call. */
static ssize_t
send_some(TransportObject *self)
{
    write_queue *queue = &self->queue;
    PyObject **chunks = queue_chunks(queue) + queue->head;
    size_t count = queue->count < MAX_PARTS ? queue->count : MAX_PARTS;
    struct iovec parts[MAX_PARTS];
    ssize_t sent;

    if (!self->open) {
        errno = EBADF;  // The number may be somebody else's by now.
        return -1;
    }
    parts[0].iov_base = PyBytes_AS_STRING(chunks[0]) + queue->sent;
    parts[0].iov_len = (size_t)PyBytes_GET_SIZE(chunks[0]) - queue->sent;
    for (size_t i = 1; i < count; i++) {
        parts[i].iov_base = PyBytes_AS_STRING(chunks[i]);
        parts[i].iov_len = (size_t)PyBytes_GET_SIZE(chunks[i]);
    }
    Loop_poll_next(self->home);
    do {
        sent = self->ops->send(self->fd, parts, count);
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
    int result = Transport_fatal_error(self, self->ops->write_error);
    if (waiter != NULL && result == 0) {
        result = Transport_fail_waiter(waiter, exc);
    }
    Py_XDECREF(waiter);
    Py_DECREF(exc);
    return result;
}

int
Stream_shut_down(TransportObject *self)
{
    if (self->eof_sent) {
        return 0;
    }
    self->eof_sent = true;
    Loop_poll_next(self->home);
    if (shutdown(self->fd, SHUT_WR) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    return 0;
}

/* All that a closing transport had to send is sent. */
static int
end_connection(TransportObject *self)
{
    LoopObject *loop = self->loop;

    if (Transport_drained(self) == 0) {
        return 0;
    }
    if (is_fatal()) {
        return -1;
    }
    PyObject *exc = PyErr_GetRaisedException();
    PyObject *method =
        PyObject_GetAttrString((PyObject *)self, "_write_ready");
    if (method == NULL) {
        Py_DECREF(exc);
        return -1;
    }
    PyErr_SetRaisedException(exc);
    /* With a copy of the context: that one is entered, and the exception
       handler enters its. */
    int result = report_call(loop, method, NULL, NULL);
    Py_DECREF(method);
    return result;
}

/* Do what waited for all to be sent, if it is.  Runs Python. */
static int
end_if_drained(TransportObject *self)
{
    if (self->queue.count > 0 || self->loop == NULL) {
        return 0;
    }
    if (self->empty_waiter != NULL &&
        Future_resolve(self->loop, self->empty_waiter, Py_None) < 0) {
        return -1;
    }
    if (self->closing) {
        return end_connection(self);
    }
    if (self->eof && Stream_shut_down(self) < 0) {
        return Transport_fatal_error(self, "Fatal error on transport");
    }
    return 0;
}

/* Send what the kernel takes.  The errno of the connection, or 0. */
static int
try_to_send(TransportObject *self)
{
    while (self->queue.count > 0) {
        size_t before = self->unsent;
        uint32_t count = self->queue.count;
        ssize_t sent = send_some(self);
        if (sent < 0) {
            return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : errno;
        }
        queue_advance(self, (size_t)sent);
        if ((size_t)sent < before && count <= MAX_PARTS) {
            break;  // It took a part of what it was given: it is full.
        }
    }
    return 0;
}

/* What remains to be done when it is not all.  -1 only with an exception that
   must leave run_forever().  Runs Python if the connection is broken. */
static int
wait_for_room(TransportObject *self, int error)
{
    if (error != 0) {
        errno = error;
        PyErr_SetFromErrno(PyExc_OSError);
        return fail_write(self);
    }
    if (self->queue.count == 0 || self->writing) {
        return 0;
    }
    if (!self->one_context) {
        PyObject *context = PyContext_CopyCurrent();
        if (context == NULL) {
            return fail_write(self);
        }
        Py_XSETREF(self->write_context, context);
    }
    self->writing = true;
    return Transport_watch(self);
}

static int
send_queue(TransportObject *self)
{
    return wait_for_room(self, try_to_send(self));
}

/* With the kernel full nothing is held back.

   What a closing transport has left was written by resume_writing(), and that
   may be running still: connection_lost() has to wait for its end, where
   Stream_write_ready() or Stream_flush() looks again. */
static int
send_held_back(TransportObject *self)
{
    if (self->queue.count == 0 || self->writing) {
        return 0;
    }
    if (send_queue(self) < 0 || Transport_maybe_pause(self) < 0) {
        return -1;
    }
    return self->closing ? 0 : end_if_drained(self);
}

/* The protocol may hold something back as well. */
static int
settle_protocol(TransportObject *self)
{
    if (self->direct == NULL) {
        return 0;
    }
    PyObject *protocol = Py_NewRef(self->protocol);
    int result = self->direct->settle(protocol);
    Py_DECREF(protocol);
    return result;
}

int
Stream_settle(TransportObject *self)
{
    return settle_protocol(self) < 0 ? -1 : send_held_back(self);
}

static int
flush_in(TransportObject *self, PyObject *context)
{
    if (self->writing) {
        return 0;
    }
    int error = try_to_send(self);
    if (error == 0 && self->queue.count == 0) {
        return end_if_drained(self);
    }
    /* As if it were still called by whoever wrote it. */
    int entered = context == NULL ? 0 : context_enter(context);
    if (entered < 0) {
        PyErr_Clear();
    }
    int result = wait_for_room(self, error);
    if (result == 0) {
        result = Transport_maybe_pause(self);
    }
    return context_leave(context, entered) < 0 ? -1 : result;
}

static int
flush_one(TransportObject *self)
{
    PyObject *context = self->held_context;

    self->held_context = NULL;
    int result = flush_in(self, context);
    Py_XDECREF(context);
    return result;
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
        /* What it writes now belongs to this flush. */
        if (settle_protocol(self) < 0) {
            Loop_fail(loop);
        }
        self->held_back = false;
        if (flush_one(self) < 0) {
            Loop_fail(loop);
        }
        Py_DECREF(self);
    }
    if (raised != NULL) {
        PyErr_SetRaisedException(raised);
    }
}

void
Stream_hold_back(TransportObject *self)
{
    LoopObject *loop = self->loop;

    if (self->held_back) {
        return;
    }
    self->held_back = true;
    self->held_context = Py_XNewRef(compat_current_context());
    Py_INCREF(self);
    if (loop->unflushed == NULL) {
        loop->unflushed = self;
    }
    else {
        loop->last_unflushed->next_unflushed = self;
    }
    loop->last_unflushed = self;
}

/* Hold it back until the end of the callback that runs now, or send it. */
int
Stream_send_later(TransportObject *self)
{
    LoopObject *loop = self->loop;
    size_t limit = Py_MIN(self->high_water, self->ops->max_held_back);

    if (self->writing) {
        return Transport_maybe_pause(self);
    }
    if (!loop->collecting || self->unsent > limit) {
        return send_held_back(self);
    }
    Stream_hold_back(self);
    return 0;
}

/* The kernel has room again. */
int
Stream_write_ready(TransportObject *self)
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
    return end_if_drained(self);
}

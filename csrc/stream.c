/* Bytes into a stream transport, and what libuv reports about it.

   One recv() for each time the kernel reports input.  It waits for its turn
   behind the callbacks that are in the ready queue already. */
#include "ouroloop.h"

#include <errno.h>

enum {
    SMALL_READ = 4 * 1024, /* below it a copy is cheaper than an object of
                              the right size */
    MAX_READS = 8,         /* for one event */
    MOST_FOUND = 512       /* transports whose input waits for its turn */
};

static ssize_t
receive_from_socket(int fd, void *buffer, size_t size)
{
    return recv(fd, buffer, size, 0);
}

/* As recv(): -1 with errno. */
static ssize_t
receive(TransportObject *self, void *buffer, size_t size)
{
    ssize_t count;

    do {
        count = self->ops->receive(self->fd, buffer, size);
    } while (count < 0 && errno == EINTR);
    self->filled = count == (ssize_t)size;
    return count;
}

char *
Stream_shared_buffer(LoopObject *loop)
{
    if (loop->read_buffer != NULL) {
        return loop->read_buffer;
    }
    /* glibc's malloc() takes a large block from the kernel and gives it back
       each time, until a larger one has been freed: what is read into large
       objects would be paged in anew at each read. */
    PyMem_Free(PyMem_Malloc(2 * STREAM_MAX_READ));
    loop->read_buffer = PyMem_Malloc(STREAM_MAX_READ);
    if (loop->read_buffer == NULL) {
        PyErr_NoMemory();
    }
    return loop->read_buffer;
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

/* Read into the loop's buffer: as receive(), or -1 with an exception. */
static ssize_t
read_shared(TransportObject *self)
{
    char *buffer = Stream_shared_buffer(self->loop);

    if (buffer == NULL) {
        return -1;
    }
    return receive(
        self, buffer,
        self->max_size < STREAM_MAX_READ ? self->max_size : STREAM_MAX_READ);
}

PyObject *
Stream_read_bytes(TransportObject *self)
{
    PyObject *data = NULL;
    ssize_t count;
    size_t size = Py_MIN(self->read_size, self->max_size);

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
        count = read_shared(self);
        if (count < 0) {
            return NULL;
        }
        data = PyBytes_FromStringAndSize(self->loop->read_buffer, count);
        if (data == NULL) {
            return NULL;
        }
    }
    adapt(self, (size_t)count);
    return data;
}

static int
fail_to_read(TransportObject *self)
{
    return PyErr_Occurred()
        ? Transport_fatal_error(self, "Fatal read error on socket transport")
        : fail_read(self);
}

/* Hand it on; steals it, and it may be NULL. */
static int
deliver(TransportObject *self, PyObject *data)
{
    PyObject *result = data == NULL
        ? NULL
        : Transport_call(self, self->state->str_data_received, data);

    Py_XDECREF(data);
    if (result == NULL) {
        return Transport_fatal_error(
            self, "Fatal error: protocol.data_received() call failed.");
    }
    Py_DECREF(result);
    return 0;
}

static int
read_data(TransportObject *self)
{
    PyObject *data = Stream_read_bytes(self);

    if (data == NULL) {
        return fail_to_read(self);
    }
    if (PyBytes_GET_SIZE(data) == 0) {
        Py_DECREF(data);
        return read_eof(self);
    }
    return deliver(self, data);
}

/* For asyncio's streams, which copy what they get. */
static int
read_into_streams(TransportObject *self)
{
    ssize_t count = read_shared(self);

    if (count < 0) {
        return fail_to_read(self);
    }
    if (count == 0) {
        return read_eof(self);
    }
    char *data = self->loop->read_buffer;
    int fed = Streams_feed(self->state, self->protocol, data, count);
    if (fed > 0) {
        return 0;
    }
    return deliver(self,
                   fed < 0 ? NULL : PyBytes_FromStringAndSize(data, count));
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
read_directly(TransportObject *self)
{
    ssize_t count = read_shared(self);

    if (count < 0) {
        return PyErr_Occurred()
            ? Transport_fatal_error(self,
                                    "Fatal read error on socket transport")
            : fail_read(self);
    }
    if (count == 0) {
        return read_eof(self);
    }
    PyObject *protocol = Py_NewRef(self->protocol);
    int result =
        self->direct->feed(protocol, self->loop->read_buffer, (size_t)count);
    Py_DECREF(protocol);
    return result == 0
        ? 0
        : Transport_fatal_error(
              self, "Fatal error: protocol.buffer_updated() call failed.");
}

static int
read_ready(TransportObject *self)
{
    for (int i = 0; i < MAX_READS; i++) {
        if (self->loop == NULL || self->conn_lost || !self->reading) {
            return 0;
        }
        self->filled = false;
        int result = self->direct != NULL ? read_directly(self)
            : self->buffered              ? read_into_protocol(self)
            : self->streams               ? read_into_streams(self)
                                          : read_data(self);
        /* More has come than there was room for, and nothing else is to be
           done: the next turn would only ask the kernel what is known. */
        if (result < 0 || !self->filled || self->loop == NULL ||
            self->loop->ready.count > 0 || self->loop->batch > 1) {
            return result;
        }
    }
    return 0;
}

/* Events. */

/* In which the event is told of. */
static PyObject *
context_of(TransportObject *self, int event)
{
    PyObject *context =
        event == UV_READABLE ? self->read_context : self->write_context;

    return context == NULL ? self->context : context;
}

/* In debug mode the work is a Handle, as on stock asyncio: timed, named in the
   log if slow. */
static int
queue_method(TransportObject *self, int event, const char *name)
{
    LoopObject *loop = self->loop;
    PyObject *method = PyObject_GetAttrString((PyObject *)self, name);
    HandleObject *handle = method == NULL
        ? NULL
        : Handle_new(loop, method, NULL, 0, context_of(self, event));
    int result = handle == NULL ? -1
                                : Ready_push(&loop->ready, READY_HANDLE,
                                             (PyObject *)handle, NULL, NULL);

    Py_XDECREF(method);
    Py_XDECREF(handle);
    return result;
}

/* Runs Python.  -1 only with an exception that must leave run_forever(). */
static int
call_in(TransportObject *self, int (*work)(TransportObject *),
        PyObject *context)
{
    /* It may be replaced meanwhile. */
    Py_INCREF(context);
    int entered = context_enter(context);
    int result = entered < 0 ? -1 : work(self);
    if (context_leave(context, entered) < 0) {
        result = -1;
    }
    Py_DECREF(context);
    return result;
}

/* Both look at the state first.  As above. */
static int
read_and_write(TransportObject *self, int events)
{
    int result = 0;

    if (events & UV_READABLE) {
        result = call_in(self, self->ops->read_ready,
                         context_of(self, UV_READABLE));
    }
    if (result == 0 && (events & UV_WRITABLE) && self->loop != NULL) {
        result = call_in(self, self->ops->write_ready,
                         context_of(self, UV_WRITABLE));
    }
    return result;
}

/* Do what the poll has found to be possible, unless it was given up since. */
static void
run_events(PyObject *object)
{
    TransportObject *self = (TransportObject *)object;
    LoopObject *loop = self->loop;
    int events = self->found;

    self->found = 0;
    if (events == 0 || !self->open || loop == NULL) {
        return;
    }
    if (read_and_write(self, events) < 0) {
        Loop_fail(loop);
    }
    if ((self->watched & UV_WRITABLE) && !self->writing &&
        Transport_unwatch(self) < 0) {
        Loop_report(loop, "Cannot watch the connection", "transport", object);
    }
}

/* Without a turn of its own. */
static void
run_events_here(TransportObject *self, LoopObject *loop)
{
    bool collecting = loop->collecting;

    loop->collecting = true;
    run_events((PyObject *)self);
    loop->collecting = collecting;
    if (loop->unflushed != NULL) {
        Stream_flush(loop);
    }
}

/* Is it that long until anything else than what was found has to be done? */
static bool
is_alone(LoopObject *loop)
{
    timer_heap *timers = &loop->timers;

    return loop->ready.count == 0 &&
        (timers->count == 0 ||
         (!loop->custom_time &&
          timers->entries[0].when > (double)loop->last_poll_ns / 1e9 + 1e-6));
}

void
Stream_end_poll(LoopObject *loop)
{
    TransportObject *first = loop->first_found;

    loop->first_found = NULL;
    /* Most polls find one thing; to queue that would cost more than all that
       is done here. */
    if (is_alone(loop)) {
        run_events_here(first, loop);
    }
    else if (Ready_push_first(&loop->ready, run_events, (PyObject *)first) <
             0) {
        Loop_fail(loop);
    }
    Py_DECREF(first);
}

/* Input goes behind the callbacks that wait already, as on stock asyncio, and
   timers behind it. */
static int
queue_events(TransportObject *self, LoopObject *loop, int events)
{
    if (self->found != 0) {
        self->found |= (uint8_t)events;  // Its turn has not come yet.
        return 0;
    }
    self->found = (uint8_t)events;
    if (loop->found_count == 0 && loop->ready.count == 0) {
        loop->found_count = 1;
        loop->first_found = (TransportObject *)Py_NewRef(self);
        return 0;
    }
    /* libuv asks for more and more when it has found 1024 and they are still
       to be found: the rest is taken at once. */
    if (loop->found_count++ < MOST_FOUND) {
        return Ready_push_native(&loop->ready, run_events, (PyObject *)self);
    }
    Py_INCREF(self);
    run_events_here(self, loop);
    Py_DECREF(self);
    return 0;
}

static int
queue_handles(TransportObject *self, int events)
{
    int result = 0;

    if (events & UV_READABLE) {
        result = queue_method(self, UV_READABLE, "_read_ready");
    }
    if (result == 0 && (events & UV_WRITABLE)) {
        result = queue_method(self, UV_WRITABLE, "_write_ready");
    }
    return result;
}

/* Drop what nobody wants, and watch for what is wanted. */
static int
wanted_of(TransportObject *self, int status, int events)
{
    if (status < 0) {
        /* POLLERR, and libuv has stopped the watcher.  recv() and send()
           know the error. */
        self->watched = 0;
        events = UV_READABLE | UV_WRITABLE;
    }
    if (Transport_unwatch(self) < 0) {
        Loop_report(self->loop, "Cannot watch the connection", "transport",
                    (PyObject *)self);
    }
    /* A pipe wants to know that nobody reads, also while it closes. */
    return (self->paused ? 0 : events & UV_READABLE) |
        (self->writing ? events & UV_WRITABLE : 0);
}

void
Stream_on_event(uv_poll_t *uv, int status, int events)
{
    TransportObject *self = uv->data;
    LoopObject *loop = CONTAINER_OF(uv->loop, LoopObject, uv);

    Loop_enter(loop);
    if (!self->open || self->loop == NULL) {
        return;
    }
    if (status < 0 || events != UV_READABLE || !self->reading) {
        events = wanted_of(self, status, events);
    }
    if (events != 0 &&
        (loop->debug ? queue_handles(self, events)
                     : queue_events(self, loop, events)) < 0) {
        Loop_fail(loop);
    }
}

const transport_ops stream_ops = {
    .on_event = Stream_on_event,
    .flush = Stream_settle,
    .discard = Stream_discard,
    .abandon = Transport_abandon,
    .read_ready = read_ready,
    .write_ready = Stream_write_ready,
    .receive = receive_from_socket,
    .send = Stream_send,
    .max_held_back = STREAM_MAX_HELD_BACK,
    .write_error = "Fatal write error on socket transport",
};

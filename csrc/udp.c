/* Datagrams: into and out of a socket that keeps them apart, and its events.

   A datagram is sent at once and waits only when the kernel is full.  What has
   arrived is taken from the kernel several at a time when there is much of it,
   but each turn of the loop hands on one, as asyncio does: whoever waits for
   the first has run, and may have paused or closed, before the second. */
#include "ouroloop.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/un.h>

enum {
    /* The most of an Internet datagram, with its headers. */
    INET_MAX_SIZE = 64 * 1024,
    MAX_BATCH = 16,
    BATCH_BUFFER_SIZE = MAX_BATCH * INET_MAX_SIZE,
    MAX_PATIENCE = 64,
    KNOWN_ADDRESSES = 32
};

/* Queues. */

static int
queue_make_room(datagram_queue *queue)
{
    if (queue->count < queue->capacity) {
        return 0;
    }
    size_t capacity = queue->capacity == 0 ? 8 : 2 * (size_t)queue->capacity;
    datagram *items = PyMem_New(datagram, capacity);
    if (items == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (uint32_t i = 0; i < queue->count; i++) {
        items[i] = queue->items[(queue->head + i) & (queue->capacity - 1)];
    }
    PyMem_Free(queue->items);
    queue->items = items;
    queue->capacity = (uint32_t)capacity;
    queue->head = 0;
    return 0;
}

/* Both steal the references of the datagram, also on failure. */
static int
queue_push(datagram_queue *queue, datagram item)
{
    if (queue_make_room(queue) < 0) {
        Py_DECREF(item.data);
        Py_DECREF(item.address);
        return -1;
    }
    uint32_t end = (queue->head + queue->count++) & (queue->capacity - 1);
    queue->items[end] = item;
    return 0;
}

static int
queue_push_first(datagram_queue *queue, datagram item)
{
    if (queue_make_room(queue) < 0) {
        Py_DECREF(item.data);
        Py_DECREF(item.address);
        return -1;
    }
    queue->head = (queue->head - 1) & (queue->capacity - 1);
    queue->items[queue->head] = item;
    queue->count++;
    return 0;
}

/* The references become the caller's. */
static datagram
queue_pop(datagram_queue *queue)
{
    datagram first = queue->items[queue->head];

    queue->head = (queue->head + 1) & (queue->capacity - 1);
    if (--queue->count == 0) {
        PyMem_Free(queue->items);
        *queue = (datagram_queue){0};
    }
    return first;
}

static void
queue_clear(datagram_queue *queue)
{
    while (queue->count > 0) {
        datagram first = queue_pop(queue);
        Py_DECREF(first.data);
        Py_DECREF(first.address);
    }
}

static void
discard(TransportObject *transport)
{
    DatagramObject *self = (DatagramObject *)transport;

    queue_clear(&self->unsent);
    queue_clear(&self->received);
    transport->unsent = 0;
}

/* Addresses. */

/* An exact int from 0 to `most`; -1 without an exception for all else. */
static long
small_number(PyObject *object, long most)
{
    int overflow;

    if (!PyLong_CheckExact(object)) {
        return -1;
    }
    long value = PyLong_AsLongAndOverflow(object, &overflow);
    return overflow != 0 || value < 0 || value > most ? -1 : value;
}

/* Where a sender with this port belongs.  NULL only if there is no table. */
static known_address *
known_place(DatagramObject *self, unsigned port)
{
    return self->known == NULL ? NULL : &self->known[port % KNOWN_ADDRESSES];
}

void
Datagram_forget_addresses(DatagramObject *self)
{
    for (int i = 0; self->known != NULL && i < KNOWN_ADDRESSES; i++) {
        Py_XDECREF(self->known[i].object);
    }
    PyMem_Free(self->known);
    self->known = NULL;
}

/* As the socket module shows it.  The latest are kept: most datagrams come
   from where one came from before, and are answered to there.  New; NULL
   without an exception for a family that is not known here. */
static PyObject *
show_address(DatagramObject *self, const struct sockaddr *address,
             socklen_t size)
{
    if (size == 0) {
        Py_RETURN_NONE;  // A Unix socket without a name.
    }
    if (size > sizeof(inet_address) ||
        (address->sa_family != AF_INET && address->sa_family != AF_INET6)) {
        return Address_object(address, size);
    }
    if (self->known == NULL) {
        self->known = PyMem_Calloc(KNOWN_ADDRESSES, sizeof(*self->known));
        if (self->known == NULL) {
            return PyErr_NoMemory();
        }
    }
    /* The port is at the same place in both families. */
    known_address *known = known_place(
        self, ntohs(((const struct sockaddr_in *)address)->sin_port));
    if (known->object != NULL && size == known->size &&
        memcmp(address, &known->address, size) == 0) {
        return Py_NewRef(known->object);
    }
    PyObject *object = Address_object(address, size);
    if (object != NULL) {
        memcpy(&known->address, address, size);
        known->size = size;
        Py_XSETREF(known->object, Py_NewRef(object));
    }
    return object;
}

/* The usual, numeric form of an Internet address.  0 for all others, which
   are left to the socket object: names, and what is wrong. */
static socklen_t
parse_address(DatagramObject *self, PyObject *object, inet_address *address)
{
    if ((self->family != AF_INET && self->family != AF_INET6) ||
        !PyTuple_CheckExact(object)) {
        return 0;
    }
    Py_ssize_t count = PyTuple_GET_SIZE(object);
    if (count != 2 && !(self->family == AF_INET6 && count == 4)) {
        return 0;
    }
    PyObject *host = PyTuple_GET_ITEM(object, 0);
    long port = small_number(PyTuple_GET_ITEM(object, 1), 0xffff);
    if (port < 0) {
        return 0;
    }
    const known_address *known = known_place(self, (unsigned)port);
    if (known != NULL && known->object == object) {
        memcpy(address, &known->address, known->size);
        return known->size;
    }
    if (!PyUnicode_CheckExact(host) || !PyUnicode_IS_ASCII(host)) {
        return 0;
    }
    const char *text = PyUnicode_AsUTF8(host);
    if (text == NULL) {
        PyErr_Clear();
        return 0;
    }
    if (strlen(text) != (size_t)PyUnicode_GET_LENGTH(host)) {
        return 0;
    }
    memset(address, 0, sizeof(*address));
    if (self->family == AF_INET) {
        address->inet.sin_family = AF_INET;
        address->inet.sin_port = htons((uint16_t)port);
        return inet_pton(AF_INET, text, &address->inet.sin_addr) == 1
            ? sizeof(address->inet)
            : 0;
    }
    long flow = 0, scope = 0;
    if (count == 4) {
        flow = small_number(PyTuple_GET_ITEM(object, 2), 0xfffff);
        scope = small_number(PyTuple_GET_ITEM(object, 3), INT32_MAX);
    }
    address->inet6.sin6_family = AF_INET6;
    address->inet6.sin6_port = htons((uint16_t)port);
    address->inet6.sin6_flowinfo = htonl((uint32_t)flow);
    address->inet6.sin6_scope_id = (uint32_t)scope;
    return flow >= 0 && scope >= 0 &&
            inet_pton(AF_INET6, text, &address->inet6.sin6_addr) == 1
        ? sizeof(address->inet6)
        : 0;
}

/* Out. */

/* Give it to the kernel.  As send(): -1 with errno. */
static ssize_t
send_natively(DatagramObject *self, const void *data, size_t size,
              const inet_address *to, socklen_t to_size)
{
    ssize_t sent;

    Loop_poll_next(self->transport.home);
    do {
        /* No address for a connected socket: some systems refuse any. */
        sent = sendto(self->transport.fd, data, size, COMPAT_MSG_NOSIGNAL,
                      to_size > 0 ? &to->any : NULL, to_size);
    } while (sent < 0 && errno == EINTR);
    return sent;
}

static int
send_through_socket(DatagramObject *self, PyObject *data, PyObject *address)
{
    Loop_poll_next(self->transport.home);
    PyObject *result = self->connected
        ? PyObject_CallMethod(self->transport.sock, "send", "O", data)
        : PyObject_CallMethod(self->transport.sock, "sendto", "OO", data,
                              address);

    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* 0, or -1 with any exception, BlockingIOError among them.  Runs Python. */
static int
send_one(DatagramObject *self, PyObject *data, PyObject *address)
{
    inet_address to;
    socklen_t to_size = 0;
    Py_buffer view;

    if (!self->connected) {
        to_size = parse_address(self, address, &to);
        if (to_size == 0) {
            return send_through_socket(self, data, address);
        }
        if (PySys_Audit("socket.sendto", "OO", self->transport.sock, address) <
            0) {
            return -1;
        }
    }
    if (!self->transport.open) {
        /* An audit hook has closed the loop. */
        return send_through_socket(self, data, address);
    }
    ssize_t sent;
    if (PyBytes_CheckExact(data)) {
        sent = send_natively(self, PyBytes_AS_STRING(data),
                             (size_t)PyBytes_GET_SIZE(data), &to, to_size);
    }
    else {
        if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) < 0) {
            return -1;
        }
        sent = send_natively(self, view.buf, (size_t)view.len, &to, to_size);
        int err = errno;
        PyBuffer_Release(&view);
        errno = err;
    }
    if (sent < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    return 0;
}

/* protocol.error_received() with the set exception.  -1 with what that raises.
   Runs Python. */
static int
tell_error(DatagramObject *self)
{
    TransportObject *transport = &self->transport;
    handled_exception outer;
    PyObject *exc = PyErr_GetRaisedException();
    /* None once the transport has ended: an AttributeError, as in asyncio. */
    PyObject *protocol =
        Py_NewRef(transport->protocol == NULL ? Py_None : transport->protocol);
    begin_handling(exc, &outer);
    PyObject *result = PyObject_CallMethodOneArg(
        protocol, transport->state->str_error_received, exc);
    end_handling(&outer);

    Py_XDECREF(result);
    Py_DECREF(protocol);
    Py_DECREF(exc);
    return result == NULL ? -1 : 0;
}

static bool
is_blocked(void)
{
    return PyErr_ExceptionMatches(PyExc_BlockingIOError) ||
        PyErr_ExceptionMatches(PyExc_InterruptedError);
}

/* The set exception is not for now, but for the protocol or the end.  -1 with
   any exception.  Runs Python. */
static int
fail_send(DatagramObject *self)
{
    return PyErr_ExceptionMatches(PyExc_OSError)
        ? tell_error(self)
        : Transport_fatal_error(&self->transport,
                                "Fatal write error on datagram transport");
}

static size_t
counted_size(PyObject *data)
{
    return (size_t)PyBytes_GET_SIZE(data) + COMPAT_DATAGRAM_HEADER;
}

int
Datagram_send(DatagramObject *self, PyObject *data, PyObject *address)
{
    TransportObject *transport = &self->transport;

    if (transport->loop == NULL) {
        /* Whoever writes so late gets asyncio's AttributeError. */
        PyObject *none = PyObject_GetAttr(
            Py_None, transport->state->str_call_exception_handler);
        Py_XDECREF(none);
        return -1;
    }
    if (self->unsent.count == 0) {
        if (send_one(self, data, address) == 0) {
            return 0;
        }
        if (!is_blocked()) {
            return fail_send(self);
        }
        PyErr_Clear();
        if (transport->loop == NULL) {
            return 0;
        }
        transport->writing = true;
        if (Transport_watch(transport) < 0) {
            return -1;
        }
    }
    /* What may still change is copied. */
    PyObject *bytes =
        PyBytes_CheckExact(data) ? Py_NewRef(data) : PyBytes_FromObject(data);
    if (bytes == NULL) {
        return -1;
    }
    datagram item = {bytes, Py_NewRef(address)};
    if (queue_push(&self->unsent, item) < 0) {
        return -1;
    }
    transport->unsent += counted_size(bytes);
    return Transport_maybe_pause(transport);
}

int
Datagram_write_ready(DatagramObject *self)
{
    TransportObject *transport = &self->transport;

    if (transport->conn_lost || !transport->writing) {
        return 0;
    }
    while (self->unsent.count > 0) {
        datagram item = queue_pop(&self->unsent);
        transport->unsent -= counted_size(item.data);
        if (send_one(self, item.data, item.address) == 0) {
            Py_DECREF(item.data);
            Py_DECREF(item.address);
            continue;
        }
        if (is_blocked() && transport->loop != NULL) {
            PyErr_Clear();
            transport->unsent += counted_size(item.data);
            if (queue_push_first(&self->unsent, item) < 0) {
                return -1;
            }
            break;
        }
        Py_DECREF(item.data);
        Py_DECREF(item.address);
        /* The rest goes on in the next turn. */
        return fail_send(self);
    }
    if (transport->loop == NULL) {
        return 0;
    }
    /* May send more. */
    if (Transport_maybe_resume(transport) < 0) {
        return -1;
    }
    if (self->unsent.count == 0) {
        transport->writing = false;
        return Transport_drained(transport);
    }
    return 0;
}

/* In. */

/* How many to take next time.  Asking for more than there are costs as much as
   a system call, so that a lone one is not taken for the first of many each
   time. */
static void
adapt(DatagramObject *self, int asked, int received)
{
    if (received < asked) {
        self->batch = (uint8_t)Py_MAX(received, 1);
        if (received <= 1) {
            self->patience = (uint8_t)Py_MIN(2 * self->patience, MAX_PATIENCE);
            self->until_probe = self->patience;
        }
    }
    else if (asked > 1) {
        self->batch = (uint8_t)Py_MIN(2 * asked, MAX_BATCH);
        self->patience = 1;
    }
    else if (self->until_probe <= 1) {
        self->batch = 2;
    }
    else {
        self->until_probe--;
    }
}

/* As Python sees it; its fields are NULL on failure. */
static datagram
make_datagram(DatagramObject *self, const char *data, size_t size,
              const struct sockaddr *address, socklen_t address_size)
{
    datagram item = {
        PyBytes_FromStringAndSize(data, (Py_ssize_t)size),
        show_address(self, address, address_size),
    };
    if (item.data == NULL || item.address == NULL) {
        Py_CLEAR(item.data);
        Py_CLEAR(item.address);
    }
    return item;
}

static int
need_buffer(char **buffer, size_t size)
{
    if (*buffer == NULL) {
        *buffer = PyMem_Malloc(size);
        if (*buffer == NULL) {
            PyErr_NoMemory();
            return -1;
        }
    }
    return 0;
}

static int
receive_one(DatagramObject *self, uint32_t max_size, datagram *item)
{
    LoopObject *loop = self->transport.loop;
    struct sockaddr_storage storage;
    struct sockaddr *address = (struct sockaddr *)&storage;
    socklen_t address_size = sizeof(storage);
    ssize_t size;

    if (need_buffer(&loop->read_buffer, STREAM_MAX_READ) < 0) {
        return -1;
    }
    do {
        size = recvfrom(self->transport.fd, loop->read_buffer, max_size, 0,
                        address, &address_size);
    } while (size < 0 && errno == EINTR);
    if (size < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    adapt(self, 1, 1);
    *item = make_datagram(self, loop->read_buffer, (size_t)size, address,
                          Py_MIN(address_size, sizeof(storage)));
    return item->data == NULL ? -1 : 0;
}

/* Up to `count`, with one system call.  The buffer is the loop's; only as much
   of it becomes real memory as datagrams fill. */
static int
receive_batch(DatagramObject *self, uint32_t slot_size, int count,
              datagram *first)
{
    LoopObject *loop = self->transport.loop;
    compat_message messages[MAX_BATCH];
    struct sockaddr_storage names[MAX_BATCH];
    struct iovec parts[MAX_BATCH];

    if (need_buffer(&loop->batch_buffer, BATCH_BUFFER_SIZE) < 0) {
        return -1;
    }
    memset(messages, 0, sizeof(messages[0]) * (size_t)count);
    for (int i = 0; i < count; i++) {
        parts[i].iov_base = loop->batch_buffer + (size_t)i * slot_size;
        parts[i].iov_len = slot_size;
        messages[i].msg_hdr.msg_name = &names[i];
        messages[i].msg_hdr.msg_namelen = sizeof(names[i]);
        messages[i].msg_hdr.msg_iov = &parts[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    int received;
    do {
        received = compat_recvmmsg(self->transport.fd, messages, count);
    } while (received < 0 && errno == EINTR);
    if (received < 0) {
        if (errno == EAGAIN || errno == EWOULDBLOCK) {
            adapt(self, count, 0);
        }
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    adapt(self, count, received);
    for (int i = 0; i < received; i++) {
        datagram item =
            make_datagram(self, parts[i].iov_base, messages[i].msg_len,
                          (const struct sockaddr *)&names[i],
                          messages[i].msg_hdr.msg_namelen);
        if (item.data == NULL ||
            (i > 0 && queue_push(&self->received, item) < 0)) {
            if (i > 0) {
                Py_CLEAR(first->data);
                Py_CLEAR(first->address);
            }
            return -1;
        }
        if (i == 0) {
            *first = item;
        }
    }
    return 0;
}

/* Of a family whose addresses are not known here. */
static int
receive_through_socket(DatagramObject *self, datagram *item)
{
    PyObject *pair = PyObject_CallMethod(self->transport.sock, "recvfrom", "I",
                                         (unsigned)self->transport.max_size);

    if (pair == NULL) {
        return -1;
    }
    int result = -1;
    if (PyArg_ParseTuple(pair, "OO", &item->data, &item->address)) {
        Py_INCREF(item->data);
        Py_INCREF(item->address);
        result = 0;
    }
    Py_DECREF(pair);
    return result;
}

/* Take the next from the kernel, perhaps more, which are queued.  -1 with any
   exception. */
static int
receive(DatagramObject *self, datagram *item)
{
    uint32_t size = Py_MIN(self->transport.max_size, STREAM_MAX_READ);
    uint32_t batch = self->batch;

    if (self->family != AF_INET && self->family != AF_INET6 &&
        self->family != AF_UNIX) {
        return receive_through_socket(self, item);
    }
    /* Without separate datagrams the end repeats itself. */
    if (batch == 1 || !self->is_datagram) {
        return receive_one(self, size, item);
    }
    if (self->family != AF_UNIX) {
        size = Py_MIN(size, INET_MAX_SIZE);
    }
    batch = Py_MIN(batch, BATCH_BUFFER_SIZE / Py_MAX(size, 1));
    return receive_batch(self, size, (int)batch, item);
}

static void read_next(PyObject *object);

/* Have the next one read in the loop's next turn, behind all that waits now.
 */
static int
queue_reading(DatagramObject *self)
{
    if (self->reading_queued) {
        return 0;
    }
    self->reading_queued = true;
    return Ready_push_native(&self->transport.loop->ready, read_next,
                             (PyObject *)self);
}

/* The same for one that was taken from the kernel already. */
static int
queue_delivery(DatagramObject *self)
{
    return self->received.count > 0 && self->transport.reading &&
            self->transport.loop != NULL
        ? queue_reading(self)
        : 0;
}

/* Hand it on.  Steals its references.  -1 with any exception.  Runs Python. */
static int
deliver(DatagramObject *self, datagram item)
{
    /* None if reading it has run Python that has ended the transport. */
    PyObject *protocol = self->transport.protocol == NULL
        ? Py_NewRef(Py_None)
        : Py_NewRef(self->transport.protocol);
    PyObject *args[] = {NULL, protocol, item.data, item.address};
    PyObject *result = PyObject_VectorcallMethod(
        self->transport.state->str_datagram_received, args + 1,
        3 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);

    Py_DECREF(protocol);
    Py_DECREF(item.data);
    Py_DECREF(item.address);
    PyObject *exc = result == NULL ? PyErr_GetRaisedException() : NULL;
    int queued = queue_delivery(self);
    if (exc != NULL) {
        PyErr_SetRaisedException(exc);
        return -1;
    }
    Py_DECREF(result);
    return queued;
}

int
Datagram_read_ready(DatagramObject *self)
{
    TransportObject *transport = &self->transport;
    datagram item;

    if (transport->conn_lost || !transport->reading) {
        return 0;
    }
    if (self->received.count > 0) {
        item = queue_pop(&self->received);
    }
    else if (receive(self, &item) < 0) {
        if (is_blocked()) {
            PyErr_Clear();
            return 0;
        }
        return PyErr_ExceptionMatches(PyExc_OSError)
            ? tell_error(self)
            : Transport_fatal_error(transport,
                                    "Fatal read error on datagram transport");
    }
    return deliver(self, item);
}

/* Events. */

/* Leave the transport's context and report what a callback in it has raised as
   that of a Handle for the method, as asyncio does; the report enters the
   context by itself.  -1 only with an exception that must leave run_forever().
   Runs Python. */
static int
leave_and_report(DatagramObject *self, LoopObject *loop, int entered,
                 int result, const char *name)
{
    PyObject *exc = result < 0 ? PyErr_GetRaisedException() : NULL;
    PyObject *method = NULL;

    if (context_leave(self->transport.context, entered) < 0) {
        Py_XDECREF(exc);
        return -1;
    }
    if (exc == NULL) {
        return 0;
    }
    method = PyObject_GetAttrString((PyObject *)self, name);
    if (method == NULL) {
        Py_DECREF(exc);
        return -1;
    }
    PyErr_SetRaisedException(exc);
    result = report_call(loop, method, NULL, self->transport.context);
    Py_DECREF(method);
    return result;
}

/* Do the work of the named method.  -1 as above. */
static int
run_in_context(DatagramObject *self, LoopObject *loop,
               int (*work)(DatagramObject *), const char *name)
{
    int entered = context_enter(self->transport.context);

    return entered < 0
        ? -1
        : leave_and_report(self, loop, entered, work(self), name);
}

static void
read_next(PyObject *object)
{
    DatagramObject *self = (DatagramObject *)object;
    LoopObject *loop = self->transport.loop;

    self->reading_queued = false;
    if (loop == NULL) {
        return;
    }
    Py_INCREF(loop);
    if (run_in_context(self, loop, Datagram_read_ready, "_read_ready") < 0) {
        Loop_fail(loop);
    }
    Py_DECREF(loop);
}

/* In debug mode the work is a Handle, as on stock asyncio: timed, named in the
   log if slow. */
static int
queue_method(DatagramObject *self, LoopObject *loop, const char *name)
{
    PyObject *method = PyObject_GetAttrString((PyObject *)self, name);
    HandleObject *handle = method == NULL
        ? NULL
        : Handle_new(loop, method, NULL, 0, self->transport.context);
    int result = handle == NULL ? -1
                                : Ready_push(&loop->ready, READY_HANDLE,
                                             (PyObject *)handle, NULL, NULL);

    Py_XDECREF(method);
    Py_XDECREF(handle);
    return result;
}

static int
dispatch(DatagramObject *self, LoopObject *loop, int events)
{
    int result = 0;

    /* Each runs Python; both look at the state first. */
    if (events & UV_READABLE) {
        /* With callbacks waiting the input stays behind them. */
        result = loop->debug ? queue_method(self, loop, "_read_ready")
            : loop->may_block
            ? run_in_context(self, loop, Datagram_read_ready, "_read_ready")
            : queue_reading(self);
    }
    if (result == 0 && (events & UV_WRITABLE) &&
        self->transport.loop != NULL) {
        result = loop->debug ? queue_method(self, loop, "_sendto_ready")
                             : run_in_context(self, loop, Datagram_write_ready,
                                              "_sendto_ready");
    }
    return result;
}

static void
on_event(uv_poll_t *uv, int status, int events)
{
    TransportObject *transport = uv->data;
    DatagramObject *self = (DatagramObject *)transport;
    LoopObject *loop = CONTAINER_OF(uv->loop, LoopObject, uv);

    Loop_enter(loop);
    if (!transport->open || transport->loop == NULL) {
        return;
    }
    if (status < 0) {
        /* POLLERR, and libuv has stopped the watcher.  The next call tells
           the error: of an answer that came from the network, mostly. */
        transport->watched = 0;
        events = UV_READABLE | UV_WRITABLE;
    }
    bool unwanted = (events & UV_READABLE) && !transport->reading;
    if (self->reading_queued) {
        events &= ~UV_READABLE;  // Those come first.
    }
    bool collecting = loop->collecting;
    Py_INCREF(self);
    loop->collecting = true;
    int result = dispatch(self, loop, events);
    if (result < 0) {
        Loop_fail(loop);
    }
    loop->collecting = collecting;
    if (loop->unflushed != NULL) {
        Stream_flush(loop);
    }
    if (unwanted ||
        (transport->watched & UV_WRITABLE && !transport->writing)) {
        result = Transport_unwatch(transport);
    }
    else {
        result = Transport_watch(transport);
    }
    if (result < 0) {
        Loop_report(loop, "Cannot watch the socket", "transport",
                    (PyObject *)self);
    }
    Py_DECREF(self);
}

static int
flush_nothing(TransportObject *Py_UNUSED(self))
{
    return 0;
}

static int
resumed(TransportObject *self)
{
    return queue_delivery((DatagramObject *)self);
}

const transport_ops datagram_ops = {
    .on_event = on_event,
    .flush = flush_nothing,
    .discard = discard,
    .abandon = Transport_abandon,
    .resumed = resumed,
};

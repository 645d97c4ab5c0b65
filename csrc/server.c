/* Accepting connections for asyncio.Server, which is the standard library's.

   A listening socket is watched as by add_reader(); its callback takes all
   connections that wait and makes a transport of each, with no socket object
   and no task.  With TLS asyncio's own coroutine takes over. */
#include "ouroloop.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

typedef struct {
    PyObject_HEAD
    LoopObject *loop;
    PyObject *protocol_factory, *sock, *sslcontext, *server;
    PyObject *timeouts; /* of TLS: handshake and, since 3.11, shutdown */
    PyObject *context;  /* NULL: that of whoever started the server */
    int fd;
    int backlog;
    bool nodelay;
} ListenerObject;

/* Debug mode tells what asyncio tells then; otherwise a client that goes away
   in the middle of all this is nobody's concern.  -1 with an exception. */
static int
report_failure(ListenerObject *self, PyObject *protocol)
{
    handled_exception outer;
    PyObject *exc, *context, *result = NULL;

    if (is_fatal()) {
        return -1;
    }
    if (!self->loop->debug) {
        PyErr_Clear();
        return 0;
    }
    exc = PyErr_GetRaisedException();
    begin_handling(exc, &outer);
    context =
        Py_BuildValue("{s:s,s:O}", "message",
                      "Error on transport creation for incoming connection",
                      "exception", exc);
    if (context != NULL &&
        (protocol == NULL ||
         PyDict_SetItemString(context, "protocol", protocol) == 0)) {
        result = PyObject_CallMethodOneArg(
            (PyObject *)self->loop,
            self->loop->state->str_call_exception_handler, context);
    }
    end_handling(&outer);
    Py_DECREF(exc);
    Py_XDECREF(context);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* Make the transport, in its context.  -1 with an exception; the descriptor is
   the caller's then. */
static int
connect_protocol(ListenerObject *self, int fd, const struct sockaddr *peer,
                 socklen_t peer_size, PyObject *context, PyObject **protocol)
{
    PyObject *transport = NULL;

    if (PyContext_Enter(context) < 0) {
        return -1;
    }
    *protocol = PyObject_CallNoArgs(self->protocol_factory);
    if (*protocol != NULL) {
        transport_origin from = {
            .loop = self->loop,
            .fd = fd,
            .peer = peer,
            .peer_size = peer_size,
            .protocol = *protocol,
            .server = self->server == Py_None ? NULL : self->server,
            .context = context,
            .one_context = self->context != NULL,
        };
        transport = Stream_new(&from);
    }
    if (PyContext_Exit(context) < 0) {
        Py_CLEAR(transport);
    }
    /* Its uvhandle keeps it alive. */
    Py_XDECREF(transport);
    return transport == NULL ? -1 : 0;
}

static int
serve(ListenerObject *self, int fd, const struct sockaddr *peer,
      socklen_t peer_size)
{
    PyObject *context = NULL, *protocol = NULL;
    int result = -1, one = 1;

    if (self->nodelay) {
        (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    }
    context = self->context != NULL ? PyContext_Copy(self->context)
                                    : PyContext_CopyCurrent();
    if (context != NULL) {
        result =
            connect_protocol(self, fd, peer, peer_size, context, &protocol);
    }
    if (result < 0) {
        close(fd);
        result = report_failure(self, protocol);
    }
    Py_XDECREF(context);
    Py_XDECREF(protocol);
    return result;
}

/* Takes the descriptor over.  Runs Python. */
static int
serve_tls(ListenerObject *self, int fd)
{
    PyObject *result = PyObject_CallMethod(
        (PyObject *)self->loop, "_accept_tls", "iOOOOO", fd,
        self->protocol_factory, self->sslcontext, self->server, self->timeouts,
        self->context == NULL ? Py_None : self->context);

    Py_XDECREF(result);
    return result == NULL ? report_failure(self, NULL) : 0;
}

static int
log_connection(ListenerObject *self, const struct sockaddr *peer,
               socklen_t peer_size, int fd)
{
    PyObject *address = Address_object(peer, peer_size), *result = NULL;

    if (address == NULL && !PyErr_Occurred()) {
        address = Py_NewRef(Py_None);
    }
    if (address != NULL) {
        result =
            PyObject_CallMethod(self->loop->state->logger, "debug", "sOOi",
                                "%r got a new connection from %r: fd=%r",
                                self->server, address, fd);
    }
    Py_XDECREF(address);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* Has nobody stopped the server or replaced its callback? */
static bool
is_watched(ListenerObject *self)
{
    LoopObject *loop = self->loop;
    fd_watcher *watcher =
        self->fd < loop->fd_count ? loop->fds[self->fd].watcher : NULL;
    PyObject *callback = watcher == NULL || watcher->reader == NULL
        ? NULL
        : watcher->reader->callback;

    return callback != NULL && PyCFunction_Check(callback) &&
        PyCFunction_GET_SELF(callback) == (PyObject *)self;
}

static int
watch(ListenerObject *self)
{
    PyObject *result = NULL;
    PyObject *accept = PyObject_GetAttrString((PyObject *)self, "_accept");

    if (accept != NULL) {
        result = PyObject_CallMethod((PyObject *)self->loop, "_add_reader",
                                     "OO", self->sock, accept);
    }
    Py_XDECREF(accept);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* Out of descriptors or memory: say so, and try again a little later; the
   kernel would report the waiting connection in every turn.  Runs Python. */
static int
take_a_break(ListenerObject *self)
{
    handled_exception outer;
    PyObject *sock = NULL, *context = NULL, *result = NULL, *resume = NULL;
    LoopObject *loop = self->loop;
    module_state *state = loop->state;

    PyErr_SetFromErrno(PyExc_OSError);
    PyObject *exc = PyErr_GetRaisedException();
    begin_handling(exc, &outer);
    sock = PyObject_CallOneArg(state->TransportSocket, self->sock);
    context = sock == NULL
        ? NULL
        : Py_BuildValue("{s:s,s:O,s:O}", "message",
                        "socket.accept() out of system resource", "exception",
                        exc, "socket", sock);
    if (context != NULL) {
        result = PyObject_CallMethodOneArg(
            (PyObject *)loop, state->str_call_exception_handler, context);
    }
    if (result == NULL) {
        goto done;
    }
    Py_SETREF(result,
              PyObject_CallMethod((PyObject *)loop, "_remove_reader", "i",
                                  self->fd));
    if (result == NULL) {
        goto done;
    }
    Py_CLEAR(result);
    resume = PyObject_GetAttrString((PyObject *)self, "_resume");
    if (resume != NULL) {
        result = PyObject_CallMethod((PyObject *)loop, "call_later", "OO",
                                     state->ACCEPT_RETRY_DELAY, resume);
    }
done:
    end_handling(&outer);
    Py_DECREF(exc);
    Py_XDECREF(sock);
    Py_XDECREF(context);
    Py_XDECREF(resume);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* Does a connection wait?  An accept() that finds none is twenty times as
   dear as this: it makes a socket first. */
static bool
is_next(ListenerObject *self)
{
    struct pollfd waiting = {.fd = self->fd, .events = POLLIN};

    return poll(&waiting, 1, 0) > 0;
}

static PyObject *
Listener__accept(ListenerObject *self, PyObject *Py_UNUSED(ignored))
{
    /* One more than may wait, as a new one may come meanwhile. */
    for (int i = 0; i <= self->backlog && (i == 0 || is_next(self)); i++) {
        struct sockaddr_storage storage;
        struct sockaddr *peer = (struct sockaddr *)&storage;
        socklen_t size = sizeof(storage);
        int result = 0;

        int fd = compat_accept(self->fd, peer, &size);
        if (fd < 0) {
            if (errno == ECONNABORTED || errno == EINTR) {
                continue;
            }
            if (errno == EAGAIN || errno == EWOULDBLOCK) {
                break;
            }
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS ||
                errno == ENOMEM) {
                if (take_a_break(self) < 0) {
                    return NULL;
                }
                break;
            }
            return PyErr_SetFromErrno(PyExc_OSError);
        }
        if (self->loop->debug) {
            result = log_connection(self, peer, size, fd);
        }
        if (result < 0) {
            close(fd);
            return NULL;
        }
        /* Runs Python, which may close the server. */
        if ((self->sslcontext != NULL ? serve_tls(self, fd)
                                      : serve(self, fd, peer, size)) < 0) {
            return NULL;
        }
        if (!is_watched(self)) {
            break;
        }
    }
    Py_RETURN_NONE;
}

static PyObject *
Listener__resume(ListenerObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *number = PyObject_CallMethod(self->sock, "fileno", NULL);
    long fd = number == NULL ? -1 : PyLong_AsLong(number);

    Py_XDECREF(number);
    if (PyErr_Occurred()) {
        return NULL;
    }
    /* Closed while it could not accept. */
    if (fd != self->fd) {
        Py_RETURN_NONE;
    }
    return watch(self) < 0 ? NULL : Py_NewRef(Py_None);
}

/* Life. */

static int
Listener_traverse(ListenerObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->loop);
    Py_VISIT(self->protocol_factory);
    Py_VISIT(self->sock);
    Py_VISIT(self->sslcontext);
    Py_VISIT(self->server);
    Py_VISIT(self->timeouts);
    Py_VISIT(self->context);
    return 0;
}

static int
Listener_clear(ListenerObject *self)
{
    Py_CLEAR(self->loop);
    Py_CLEAR(self->protocol_factory);
    Py_CLEAR(self->sock);
    Py_CLEAR(self->sslcontext);
    Py_CLEAR(self->server);
    Py_CLEAR(self->timeouts);
    Py_CLEAR(self->context);
    return 0;
}

static void
Listener_dealloc(ListenerObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    (void)Listener_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

/* Does asyncio turn Nagle's algorithm off on connections of this socket? */
static int
wants_nodelay(PyObject *sock, bool *nodelay)
{
    static const char *const names[] = {"family", "type", "proto"};
    long values[3];

    for (int i = 0; i < 3; i++) {
        PyObject *value = PyObject_GetAttrString(sock, names[i]);
        values[i] = value == NULL ? -1 : PyLong_AsLong(value);
        Py_XDECREF(value);
        if (values[i] == -1 && PyErr_Occurred()) {
            return -1;
        }
    }
    *nodelay = (values[0] == AF_INET || values[0] == AF_INET6) &&
        values[1] == SOCK_STREAM && values[2] == IPPROTO_TCP;
    return 0;
}

/* _start_serving(protocol_factory, sock, sslcontext=None, server=None,
   backlog=100, ssl_handshake_timeout=..., ssl_shutdown_timeout=...,
   context=None) */
PyObject *
Loop__start_serving(LoopObject *self, PyObject *const *args, Py_ssize_t nargs,
                    PyObject *kwnames)
{
    static const arg_spec spec = {
        "_start_serving",
        8,
        8,
        2,
        {ARG(protocol_factory), ARG(sock), ARG(sslcontext), ARG(server),
         ARG(backlog), ARG(ssl_handshake_timeout), ARG(ssl_shutdown_timeout),
         ARG(context)}};
    PyObject *given[8];
    module_state *state = self->state;
    PyTypeObject *type = state->ListenerType;
    PyObject *const names[] = {state->str_accept, NULL};
    long backlog = 100;

    if (parse_args(self->state, &spec, args, nargs, kwnames, given) < 0) {
        return NULL;
    }
    /* What accepts in a way of its own must be asked for each connection. */
    if (!Socket_is_plain(state, given[1], state->socket, names)) {
        return call_stock_loop(state, (PyObject *)self, spec.function, args,
                               nargs, kwnames);
    }
    if (given[4] != NULL) {
        backlog = PyLong_AsLong(given[4]);
        if (backlog == -1 && PyErr_Occurred()) {
            return NULL;
        }
    }
    ListenerObject *listener = (ListenerObject *)type->tp_alloc(type, 0);
    if (listener == NULL) {
        return NULL;
    }
    listener->loop = (LoopObject *)Py_NewRef(self);
    listener->protocol_factory = Py_NewRef(given[0]);
    listener->sock = Py_NewRef(given[1]);
    if (given[2] != NULL && given[2] != Py_None) {
        listener->sslcontext = Py_NewRef(given[2]);
    }
    listener->server = Py_NewRef(given[3] == NULL ? Py_None : given[3]);
    listener->timeouts = given[6] != NULL
        ? PyTuple_Pack(2, given[5] == NULL ? Py_None : given[5], given[6])
        : PyTuple_Pack(given[5] != NULL, given[5]);
    if (given[7] != NULL && given[7] != Py_None) {
        listener->context = Py_NewRef(given[7]);
    }
    listener->backlog = backlog < 0 ? 0
        : backlog > SOMAXCONN       ? SOMAXCONN
                                    : (int)backlog;
    PyObject *result = NULL;
    if (listener->timeouts != NULL &&
        wants_nodelay(listener->sock, &listener->nodelay) == 0 &&
        (listener->fd = PyObject_AsFileDescriptor(listener->sock)) >= 0 &&
        watch(listener) == 0) {
        result = Py_NewRef(Py_None);
    }
    Py_DECREF(listener);
    return result;
}

static PyMethodDef Listener_methods[] = {
    {"_accept", (PyCFunction)Listener__accept, METH_NOARGS, NULL},
    {"_resume", (PyCFunction)Listener__resume, METH_NOARGS, NULL},
    {NULL},
};

static PyType_Slot Listener_slots[] = {
    {Py_tp_dealloc, Listener_dealloc},
    {Py_tp_traverse, Listener_traverse},
    {Py_tp_clear, Listener_clear},
    {Py_tp_methods, Listener_methods},
    {0, NULL},
};

static PyType_Spec Listener_spec = {
    .name = "ouroloop._core.Listener",
    .basicsize = sizeof(ListenerObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
        Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = Listener_slots,
};

int
Listener_setup_type(PyObject *module, module_state *state)
{
    state->ListenerType =
        (PyTypeObject *)PyType_FromModuleAndSpec(module, &Listener_spec, NULL);
    return state->ListenerType == NULL ? -1 : 0;
}

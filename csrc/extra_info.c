/* Extra info of a transport: its addresses and its socket object.

   Most connections are never asked for any of it, so objects are made when
   somebody asks.  Addresses are kept as the kernel gives them, since it may
   have forgotten them by then. */
#include "ouroloop.h"

#include <arpa/inet.h>
#include <sys/un.h>

/* Returns the length.  inet_ntop() goes through printf(), which costs more
   than all else that a small datagram needs. */
static Py_ssize_t
show_ipv4(uint32_t address, char *text)
{
    char *end = text;

    for (int shift = 24; shift >= 0; shift -= 8) {
        unsigned part = (address >> shift) & 0xff;
        if (part >= 100) {
            *end++ = (char)('0' + part / 100);
        }
        if (part >= 10) {
            *end++ = (char)('0' + part / 10 % 10);
        }
        *end++ = (char)('0' + part % 10);
        if (shift > 0) {
            *end++ = '.';
        }
    }
    return end - text;
}

/* As the socket module shows it.  NULL without an exception for a family that
   is not known here. */
PyObject *
Address_object(const struct sockaddr *address, socklen_t size)
{
    char text[INET6_ADDRSTRLEN];

    switch (address->sa_family) {
    case AF_INET: {
        const struct sockaddr_in *inet = (const struct sockaddr_in *)address;
        return Py_BuildValue("(s#i)", text,
                             show_ipv4(ntohl(inet->sin_addr.s_addr), text),
                             (int)ntohs(inet->sin_port));
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

/* The peer's, unless whoever makes the transport knows better. */
static int
learn_peername(TransportObject *self, const transport_origin *from)
{
    PyObject *name = self->state->str_peername;
    struct sockaddr_storage storage;
    struct sockaddr *address = (struct sockaddr *)&storage;
    socklen_t size = sizeof(storage);
    int given = self->extra == NULL ? 0 : PyDict_Contains(self->extra, name);

    if (given != 0) {
        return given < 0 ? -1 : 0;
    }
    if (from->peer != NULL) {
        return keep_address(self, &self->peer, name, from->peer,
                            from->peer_size);
    }
    return getpeername(self->fd, address, &size) < 0
        ? 0
        : keep_address(self, &self->peer, name, address, size);
}

int
Transport_learn_addresses(TransportObject *self, const transport_origin *from)
{
    struct sockaddr_storage storage;
    struct sockaddr *address = (struct sockaddr *)&storage;
    socklen_t size = sizeof(storage);

    if (learn_peername(self, from) < 0) {
        return -1;
    }
    /* That of a TCP connection can be asked for later. */
    if (self->peer.any.sa_family != AF_UNSPEC ||
        getsockname(self->fd, address, &size) < 0) {
        return 0;
    }
    return keep_address(self, &self->local, self->state->str_sockname, address,
                        size);
}

void
Transport_learn_sockname(TransportObject *self)
{
    if (self->open && self->local.any.sa_family == AF_UNSPEC &&
        self->peer.any.sa_family != AF_UNSPEC) {
        socklen_t size = sizeof(self->local);
        (void)getsockname(self->fd, &self->local.any, &size);
    }
}

/* Has the socket itself attributes of these names, or a way of its own to look
   for them? */
static bool
is_shadowed(PyObject *sock, PyObject *const *names)
{
    PyObject *dict = PyObject_GenericGetDict(sock, NULL);
    bool shadowed = Py_TYPE(sock)->tp_getattro != PyObject_GenericGetAttr;

    PyErr_Clear(); /* of a class whose instances have none */
    for (; dict != NULL && !shadowed && *names != NULL; names++) {
        shadowed = PyDict_GetItemWithError(dict, *names) != NULL;
    }
    Py_XDECREF(dict);
    return shadowed;
}

bool
Socket_is_plain(module_state *state, PyObject *sock, PyObject *type,
                PyObject *const *names)
{
    for (PyObject *const *name = names; *name != NULL; name++) {
        if (_PyType_Lookup(Py_TYPE(sock), *name) !=
            _PyType_Lookup((PyTypeObject *)type, *name)) {
            return false;
        }
    }
    return (PyObject *)Py_TYPE(sock) == state->socket ||
        !is_shadowed(sock, names);
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
    int family = self->peer.any.sa_family;
    PyObject *keywords = self->open
        ? Py_BuildValue("{s:i}", "fileno", self->fd)
        : Py_BuildValue("{s:i}", "family",
                        family == AF_UNSPEC ? AF_UNIX : family);
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
        Transport_learn_sockname(self);
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

PyObject *
Transport_extra_info(TransportObject *self, PyObject *name)
{
    if (self->extra != NULL) {
        PyObject *value = PyDict_GetItemWithError(self->extra, name);
        if (value != NULL || PyErr_Occurred()) {
            return Py_XNewRef(value);
        }
    }
    return make_extra_info(self, name);
}

PyObject *
Transport_all_extra_info(TransportObject *self)
{
    module_state *state = self->state;
    PyObject *names[] = {state->str_socket, state->str_sockname,
                         state->str_peername};

    for (size_t i = 0; i < Py_ARRAY_LENGTH(names); i++) {
        PyObject *value = Transport_extra_info(self, names[i]);
        if (value == NULL) {
            return NULL;
        }
        Py_DECREF(value);
    }
    return Py_NewRef(extra_dict(self));
}

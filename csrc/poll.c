/* The callbacks of add_reader() and add_writer(); those two themselves are the
   standard library's.

   They never run from libuv's callback: their handles go to the ready queue,
   as asyncio's do, so that the order of callbacks is asyncio's and a cancelled
   one never runs. */
#include "ouroloop.h"

/* Arguments: a descriptor, or an object with fileno(). */

/* The number as selectors finds it; INT_MAX if it is larger.  -1 with an
   exception on failure, negative without one if the number is: a closed
   socket may still be known as an object.  Runs Python. */
static int
get_fileno(PyObject *file)
{
    PyObject *value = NULL, *number = NULL;
    int fd = -1;

    if (PyLong_Check(file)) {
        number = Py_NewRef(file);
    }
    else {
        value = PyObject_CallMethod(file, "fileno", NULL);
        number = value == NULL ? NULL : PyNumber_Long(value);
    }
    if (number == NULL) {
        if (PyErr_ExceptionMatches(PyExc_AttributeError) ||
            PyErr_ExceptionMatches(PyExc_TypeError) ||
            PyErr_ExceptionMatches(PyExc_ValueError)) {
            PyErr_Clear();
            PyErr_Format(PyExc_ValueError, "Invalid file object: %R", file);
        }
    }
    else {
        int overflow;
        long all = PyLong_AsLongAndOverflow(number, &overflow);
        if (overflow > 0 || all > INT_MAX) {
            fd = INT_MAX;
        }
        else if (overflow == 0 && all >= 0) {
            fd = (int)all;
        }
    }
    Py_XDECREF(value);
    Py_XDECREF(number);
    return fd;
}

/* Where the object itself is registered, though it has no number any more. */
static int
find_by_identity(LoopObject *self, PyObject *file)
{
    for (int fd = 0; fd < self->fd_count; fd++) {
        fd_watcher *watcher = self->fds[fd].watcher;
        if (watcher != NULL && watcher->file == file) {
            return fd;
        }
    }
    return -1;
}

int
Fds_number(LoopObject *self, PyObject *file)
{
    int fd = get_fileno(file);

    if (fd >= 0) {
        return fd;
    }
    if (PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_ValueError)) {
        return -1;
    }
    fd = find_by_identity(self, file);
    if (fd >= 0) {
        PyErr_Clear();
    }
    else if (!PyErr_Occurred()) {
        if (PyLong_Check(file)) {
            PyErr_Format(PyExc_ValueError, "Invalid file descriptor: %S",
                         file);
        }
        else {
            PyErr_SetString(PyExc_ValueError, "Invalid file descriptor: -1");
        }
    }
    return fd;
}

/* Methods. */

static PyObject *
add(LoopObject *self, int event, PyObject *const *args, Py_ssize_t nargs,
    PyObject *kwnames)
{
    PyObject *context = NULL;

    if (nargs < 2 ||
        (kwnames != NULL && PyTuple_GET_SIZE(kwnames) > 0 &&
         PyTuple_GET_ITEM(kwnames, 0) != self->state->str_context)) {
        PyErr_SetString(PyExc_TypeError,
                        "expected fd, callback, *args and context=");
        return NULL;
    }
    if (kwnames != NULL && PyTuple_GET_SIZE(kwnames) > 0) {
        context = args[nargs];
    }
    if (Fds_check_open(self) < 0) {
        return NULL;
    }
    int fd = Fds_number(self, args[0]);
    if (fd < 0) {
        return NULL;
    }
    if (fd == INT_MAX) {
        PyErr_SetString(PyExc_OverflowError,
                        "Python int too large to convert to C int");
        return NULL;
    }
    HandleObject *handle =
        Handle_new(self, args[1], args + 2, nargs - 2, context);
    if (handle == NULL) {
        return NULL;
    }
    fd_entry *entry = Fds_reserve_open(self, fd);
    if (entry == NULL) {
        Py_DECREF(handle);
        return NULL;
    }
    if (entry->watcher != NULL && Watcher_wanted(entry->watcher) == 0) {
        Watcher_close(entry); /* was kept for a socket, perhaps not this */
    }
    bool opened = entry->watcher == NULL;
    if (opened && Watcher_open(self, entry, fd) < 0) {
        Py_DECREF(handle);
        return NULL;
    }
    fd_watcher *watcher = entry->watcher;
    HandleObject **slot =
        event == UV_READABLE ? &watcher->reader : &watcher->writer;
    HandleObject *old = *slot;
    *slot = (HandleObject *)Py_NewRef(handle);
    if (Watcher_update(watcher) < 0) {
        *slot = old;
        if (opened) {
            Watcher_close(entry);
        }
        Py_DECREF(handle);
        Py_DECREF(handle);
        return NULL;
    }
    if (watcher->file == NULL) {
        watcher->file = Py_NewRef(args[0]);
    }
    handle->stays = true;
    /* Runs Python: the watcher may be gone afterwards. */
    if (old != NULL && cancel_callback(old) < 0) {
        Py_DECREF(handle);
        return NULL;
    }
    return (PyObject *)handle;
}

static PyObject *
remove_event(LoopObject *self, int event, PyObject *file)
{
    if (self->closed) {
        Py_RETURN_FALSE;
    }
    int fd = Fds_number(self, file);
    if (fd < 0) {
        return NULL;
    }
    fd_entry *entry = Fds_find(self, fd);
    fd_watcher *watcher = entry == NULL ? NULL : entry->watcher;
    if (watcher == NULL || !(Watcher_wanted(watcher) & event)) {
        Py_RETURN_FALSE;
    }
    HandleObject **slot =
        event == UV_READABLE ? &watcher->reader : &watcher->writer;
    HandleObject *old = *slot;
    *slot = NULL;
    /* Runs Python, and so does the next: only then let the handle go. */
    if (old != NULL && Watcher_update(watcher) < 0) {
        Py_DECREF(old);
        return NULL;
    }
    if (old != NULL && cancel_callback(old) < 0) {
        return NULL;
    }
    Py_RETURN_TRUE;
}

PyObject *
Loop__add_reader(LoopObject *self, PyObject *const *args, Py_ssize_t nargs,
                 PyObject *kwnames)
{
    return add(self, UV_READABLE, args, nargs, kwnames);
}

PyObject *
Loop__add_writer(LoopObject *self, PyObject *const *args, Py_ssize_t nargs,
                 PyObject *kwnames)
{
    return add(self, UV_WRITABLE, args, nargs, kwnames);
}

PyObject *
Loop__remove_reader(LoopObject *self, PyObject *file)
{
    return remove_event(self, UV_READABLE, file);
}

PyObject *
Loop__remove_writer(LoopObject *self, PyObject *file)
{
    return remove_event(self, UV_WRITABLE, file);
}

/* The standard library's transport on the descriptor: borrowed, or NULL.
   Its weak dictionary is Python code, so it is asked only if not empty. */
static int
find_stock_transport(LoopObject *self, int fd, PyObject **transport)
{
    PyObject *all = NULL, *data = NULL;
    int result = -1;

    *transport = NULL;
    all = PyObject_GetAttr((PyObject *)self, self->state->str__transports);
    data = all == NULL ? NULL : PyObject_GetAttr(all, self->state->str_data);
    if (data == NULL) {
        goto done;
    }
    if (PyObject_Size(data) > 0) {
        *transport = PyObject_CallMethod(all, "get", "i", fd);
        if (*transport == NULL) {
            goto done;
        }
        if (*transport == Py_None) {
            Py_CLEAR(*transport);
        }
    }
    result = 0;
done:
    Py_XDECREF(all);
    Py_XDECREF(data);
    return result;
}

int
Fds_ensure_free(LoopObject *self, PyObject *file)
{
    PyObject *transport = NULL;
    bool closing = false;
    int fd = get_fileno(file);

    if (fd < 0) {
        return PyErr_Occurred() ? -1 : 0;
    }
    fd_entry *entry = Fds_find(self, fd);
    if (entry != NULL && entry->transport != NULL) {
        transport = Py_NewRef(entry->transport);
        closing = entry->transport->closing || entry->transport->lent;
    }
    else if (find_stock_transport(self, fd, &transport) < 0) {
        return -1;
    }
    else if (transport != NULL) {
        PyObject *value = PyObject_CallMethod(transport, "is_closing", NULL);
        int truth = value == NULL ? -1 : PyObject_IsTrue(value);
        Py_XDECREF(value);
        if (truth < 0) {
            Py_DECREF(transport);
            return -1;
        }
        closing = truth;
    }
    if (transport != NULL && !closing) {
        PyErr_Format(PyExc_RuntimeError,
                     "File descriptor %R is used by transport %R", file,
                     transport);
        Py_DECREF(transport);
        return -1;
    }
    Py_XDECREF(transport);
    return 0;
}

PyObject *
Loop__ensure_fd_no_transport(LoopObject *self, PyObject *file)
{
    if (Fds_ensure_free(self, file) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

PyObject *
Loop__watched(LoopObject *self, PyObject *file)
{
    int fd = get_fileno(file);

    if (fd < 0 && PyErr_Occurred()) {
        return NULL;
    }
    fd_entry *entry = Fds_find(self, fd);
    int events = entry == NULL || entry->watcher == NULL
        ? 0
        : Watcher_wanted(entry->watcher);
    /* selectors' EVENT_READ and EVENT_WRITE. */
    return PyLong_FromLong((events & UV_READABLE ? 1 : 0) |
                           (events & UV_WRITABLE ? 2 : 0));
}

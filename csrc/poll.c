/* Who uses which file descriptor, and the callbacks of add_reader() and
   add_writer(); those two themselves are the standard library's.

   One uv_poll_t serves both callbacks of a descriptor.  They never run from
   libuv's callback: their handles go to the ready queue, as asyncio's do, so
   that the order of callbacks is asyncio's and a cancelled one never runs.
   Transports watch their descriptors themselves but stand in the same table,
   because libuv takes one active watcher per descriptor. */
#include "ouroloop.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

/* The table. */

fd_entry *
Fds_reserve(LoopObject *self, int fd)
{
    if (fd < self->fd_count) {
        return &self->fds[fd];
    }
    size_t count = self->fd_count > 0 ? (size_t)self->fd_count : 64;
    while (count <= (size_t)fd) {
        count *= 2;
    }
    fd_entry *fds = self->fds;
    PyMem_Resize(fds, fd_entry, count);
    if (fds == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    memset(fds + self->fd_count, 0,
           (count - (size_t)self->fd_count) * sizeof(fd_entry));
    self->fds = fds;
    self->fd_count = count > INT_MAX ? INT_MAX : (int)count;
    return &self->fds[fd];
}

static fd_entry *
find_entry(LoopObject *self, int fd)
{
    return fd >= 0 && fd < self->fd_count ? &self->fds[fd] : NULL;
}

int
Fds_note_armed(LoopObject *self, int fd)
{
    if (self->armed_count == self->armed_capacity) {
        size_t capacity = self->armed_capacity ? self->armed_capacity * 2 : 16;
        int *armed = self->armed;
        PyMem_Resize(armed, int, capacity);
        if (armed == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        self->armed = armed;
        self->armed_capacity = capacity;
    }
    self->armed[self->armed_count++] = fd;
    return 0;
}

/* Would epoll refuse it?  It was asked when the watcher was made, but the
   number may have become another file's since. */
static bool
is_unwatchable(int fd)
{
    struct stat status;

    return fstat(fd, &status) < 0 || S_ISREG(status.st_mode) ||
        S_ISDIR(status.st_mode) || S_ISBLK(status.st_mode);
}

void
Fds_check_armed(LoopObject *self)
{
    for (size_t i = 0; i < self->armed_count; i++) {
        fd_entry *entry = find_entry(self, self->armed[i]);

        if (entry == NULL || !is_unwatchable(self->armed[i])) {
            continue;
        }
        if (entry->watcher != NULL) {
            uv_poll_stop(&entry->watcher->uv);
            entry->watcher->events = 0;
        }
        if (entry->transport != NULL) {
            uv_poll_stop(&entry->transport->uv);
            entry->transport->watched = 0;
        }
    }
    self->armed_count = 0;
}

/* Watchers. */

static int
check_open(LoopObject *self)
{
    if (self->closed) {
        PyErr_SetString(PyExc_RuntimeError, "Event loop is closed");
        return -1;
    }
    return 0;
}

/* As Handle.cancel(), and give the reference up.  Runs Python. */
static int
cancel(HandleObject *handle)
{
    PyObject *result = PyObject_CallMethod((PyObject *)handle, "cancel", NULL);

    Py_DECREF(handle);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

static void
queue_handle(fd_watcher *self, HandleObject *handle)
{
    if (Ready_push(&self->loop->ready, READY_HANDLE, (PyObject *)handle, NULL,
                   NULL) < 0) {
        Loop_report(self->loop, "Cannot queue the callback of a descriptor",
                    "handle", (PyObject *)handle);
    }
}

static void
on_watched(uv_poll_t *uv, int status, int events)
{
    fd_watcher *self = CONTAINER_OF(uv, fd_watcher, uv);

    Loop_enter(self->loop);
    if (status < 0) {
        /* POLLERR, for which libuv has stopped the watcher.  As with
           selectors both sides learn of it by what they try to do, and again
           in each turn until they leave. */
        events = self->events;
        uv_poll_start(&self->uv, self->events, on_watched);
    }
    if ((events & UV_READABLE) && self->reader != NULL) {
        queue_handle(self, self->reader);
    }
    if ((events & UV_WRITABLE) && self->writer != NULL) {
        queue_handle(self, self->writer);
    }
}

static int
open_watcher(LoopObject *self, fd_entry *entry, int fd)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0) {
        raise_uv(-errno);
        return -1;
    }
    TransportObject *transport = entry->transport;
    if (transport != NULL && !transport->reading && !transport->writing &&
        transport->watched != 0) {
        /* It has lent the descriptor, to sendfile(); see Transport_watch(). */
        uv_poll_stop(&transport->uv);
        transport->watched = 0;
    }
    fd_watcher *watcher = PyMem_Calloc(1, sizeof(fd_watcher));
    if (watcher == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    int err = uv_poll_init(&self->uv, &watcher->uv, fd);
    if (err < 0) {
        PyMem_Free(watcher);
        raise_uv(err);
        return -1;
    }
    if (!(flags & O_NONBLOCK)) {
        /* libuv has made it non-blocking, also for everybody who shares it:
           standard input is shared with the parent process. */
        (void)fcntl(fd, F_SETFL, flags);
    }
    watcher->loop = self;
    entry->watcher = watcher;
    return 0;
}

static void
on_watcher_closed(uv_handle_t *uv)
{
    fd_watcher *self = CONTAINER_OF(uv, fd_watcher, uv);

    Loop_enter(self->loop);
    PyMem_Free(self);
}

/* Runs Python. */
static void
close_watcher(fd_entry *entry)
{
    fd_watcher *watcher = entry->watcher;
    PyObject *file = watcher->file;

    entry->watcher = NULL;
    watcher->file = NULL;
    uv_close((uv_handle_t *)&watcher->uv, on_watcher_closed);
    Py_XDECREF(file);
}

/* Watch for just these events; none closes the watcher.  Runs Python. */
static int
set_events(LoopObject *self, fd_entry *entry, int fd, int events)
{
    fd_watcher *watcher = entry->watcher;

    if (events == 0) {
        close_watcher(entry);
        return 0;
    }
    if (events == watcher->events) {
        return 0;
    }
    if (Fds_note_armed(self, fd) < 0) {
        return -1;
    }
    int err = uv_poll_start(&watcher->uv, events, on_watched);
    if (err < 0) {
        raise_uv(err);
        return -1;
    }
    watcher->events = events;
    return 0;
}

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

static int
as_fd(LoopObject *self, PyObject *file)
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
    if (check_open(self) < 0) {
        return NULL;
    }
    int fd = as_fd(self, args[0]);
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
    fd_entry *entry = NULL;
    /* The table grows with the number: it must be one of a descriptor. */
    if (fd >= self->fd_count && fcntl(fd, F_GETFD) < 0) {
        raise_uv(-errno);
    }
    else {
        entry = Fds_reserve(self, fd);
    }
    if (entry == NULL) {
        Py_DECREF(handle);
        return NULL;
    }
    bool opened = entry->watcher == NULL;
    if (opened && open_watcher(self, entry, fd) < 0) {
        Py_DECREF(handle);
        return NULL;
    }
    fd_watcher *watcher = entry->watcher;
    if (set_events(self, entry, fd, watcher->events | event) < 0) {
        if (opened) {
            close_watcher(entry);
        }
        Py_DECREF(handle);
        return NULL;
    }
    if (opened) {
        watcher->file = Py_NewRef(args[0]);
    }
    HandleObject **slot =
        event == UV_READABLE ? &watcher->reader : &watcher->writer;
    HandleObject *old = *slot;
    *slot = (HandleObject *)Py_NewRef(handle);
    handle->stays = true;
    /* Runs Python: the watcher may be gone afterwards. */
    if (old != NULL && cancel(old) < 0) {
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
    int fd = as_fd(self, file);
    if (fd < 0) {
        return NULL;
    }
    fd_entry *entry = find_entry(self, fd);
    if (entry == NULL || entry->watcher == NULL) {
        Py_RETURN_FALSE;
    }
    fd_watcher *watcher = entry->watcher;
    HandleObject **slot =
        event == UV_READABLE ? &watcher->reader : &watcher->writer;
    HandleObject *old = *slot;
    *slot = NULL;
    /* Runs Python, and so does the next: only then let the handle go. */
    if (set_events(self, entry, fd, watcher->events & ~event) < 0) {
        Py_XDECREF(old);
        return NULL;
    }
    if (old == NULL) {
        Py_RETURN_FALSE;
    }
    if (cancel(old) < 0) {
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
    data = all == NULL ? NULL : PyObject_GetAttrString(all, "data");
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
    fd_entry *entry = find_entry(self, fd);
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
    fd_entry *entry = find_entry(self, fd);
    int events =
        entry == NULL || entry->watcher == NULL ? 0 : entry->watcher->events;
    /* selectors' EVENT_READ and EVENT_WRITE. */
    return PyLong_FromLong((events & UV_READABLE ? 1 : 0) |
                           (events & UV_WRITABLE ? 2 : 0));
}

/* Cancel the callbacks of a descriptor.  Runs Python. */
static void
forget(LoopObject *self, int fd)
{
    fd_entry *entry = find_entry(self, fd);

    if (entry == NULL || entry->watcher == NULL) {
        return;
    }
    HandleObject *reader = entry->watcher->reader;
    HandleObject *writer = entry->watcher->writer;
    entry->watcher->reader = entry->watcher->writer = NULL;
    close_watcher(entry);
    if ((reader != NULL && cancel(reader) < 0) ||
        (writer != NULL && cancel(writer) < 0)) {
        PyErr_WriteUnraisable((PyObject *)self);
    }
}

static void
on_transport_closed(uv_handle_t *uv)
{
    TransportObject *transport = CONTAINER_OF(uv, TransportObject, uv);

    Loop_enter(CONTAINER_OF(uv->loop, LoopObject, uv));
    Py_DECREF(transport);
}

void
Fds_release(TransportObject *transport)
{
    LoopObject *self = CONTAINER_OF(transport->uv.loop, LoopObject, uv);

    transport->open = false;
    transport->watched = 0;
    self->fds[transport->fd].transport = NULL;
    if (transport->unwatchable) {
        Py_DECREF(transport);
        return;
    }
    uv_close((uv_handle_t *)&transport->uv, on_transport_closed);
}

int
Fds_poll_init(LoopObject *self, uv_poll_t *uv, int fd)
{
    fd_entry *entry = find_entry(self, fd);

    if (entry != NULL && entry->transport != NULL) {
        /* Somebody has closed its descriptor.  Were its uvhandle closed only
           later, libuv would stop watching the newcomer. */
        TransportObject *transport =
            (TransportObject *)Py_NewRef(entry->transport);
        Fds_release(transport);
        Py_DECREF(transport);
    }
    forget(self, fd);
    return uv_poll_init(&self->uv, uv, fd);
}

void
Fds_close(LoopObject *self)
{
    /* What this runs may neither add nor keep one: the loop is closed. */
    for (int fd = 0; fd < self->fd_count; fd++) {
        forget(self, fd);
        TransportObject *transport = self->fds[fd].transport;
        if (transport != NULL) {
            transport->ops->abandon(transport);
        }
    }
    PyMem_Free(self->armed);
    self->armed = NULL;
    self->armed_count = self->armed_capacity = 0;
}

int
Fds_traverse(LoopObject *self, visitproc visit, void *arg)
{
    for (int fd = 0; fd < self->fd_count; fd++) {
        fd_watcher *watcher = self->fds[fd].watcher;
        /* Each open transport is kept alive by one reference, its own. */
        Py_VISIT(self->fds[fd].transport);
        if (watcher == NULL) {
            continue;
        }
        HandleObject *handles[] = {watcher->reader, watcher->writer};
        Py_VISIT(watcher->file);
        for (int i = 0; i < 2; i++) {
            int result = handles[i] == NULL
                ? 0
                : Handle_visit_as_part(handles[i], visit, arg);
            if (result != 0) {
                return result;
            }
        }
    }
    return 0;
}

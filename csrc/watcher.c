/* One uv_poll_t for each file descriptor that somebody waits for.

   Callbacks of add_reader() and add_writer() are called as long as there is
   something to read or room to write.  Calls of sock_*() wait for a change,
   and only after they have tried: they need to be told of changes only, and so
   what uv watches for can stay as it is between them.  Nobody has to take
   what is reported, whether the call was cancelled or the socket closed.

   A transport watches its descriptor itself but stands in the same table,
   because libuv takes one active watcher per descriptor.  While a transport
   closes, or has lent its descriptor to sendfile(), others may wait for it as
   well: then it is told by their watcher. */
#include "ouroloop.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

/* A report that nobody waits for costs one turn; so many in a row are not
   taken for the next call that they may be for. */
enum { MAX_UNWANTED = 16 };

/* The table. */

int
Fds_check_open(LoopObject *self)
{
    if (self->closed) {
        PyErr_SetString(PyExc_RuntimeError, "Event loop is closed");
        return -1;
    }
    return 0;
}

fd_entry *
Fds_reserve(LoopObject *self, int fd)
{
    if (Fds_check_open(self) < 0) {
        return NULL;
    }
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
    Loop_poll_next(self);
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

/* Watchers. */

/* As handle.cancel(), and give the reference up.  Runs Python. */
int
cancel_callback(HandleObject *handle)
{
    PyObject *result = PyObject_CallMethod((PyObject *)handle, "cancel", NULL);

    Py_DECREF(handle);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* The next turn polls, too: the callback may read or send by itself, of which
   the loop is not told, and it is called again until it has read all. */
static void
queue_handle(fd_watcher *self, HandleObject *handle)
{
    Loop_poll_next(self->loop);
    if (Ready_push(&self->loop->ready, READY_HANDLE, (PyObject *)handle, NULL,
                   NULL) < 0) {
        Loop_report(self->loop, "Cannot queue the callback of a descriptor",
                    "handle", (PyObject *)handle);
    }
}

/* What somebody waits for. */
int
Watcher_wanted(fd_watcher *self)
{
    int events = (self->reader != NULL ? UV_READABLE : 0) |
        (self->writer != NULL ? UV_WRITABLE : 0);

    for (fd_waiter *waiter = self->first; waiter != NULL;
         waiter = waiter->next) {
        events |= waiter->event;
    }
    return events;
}

/* What the transport of the descriptor waits for. */
static int
transport_wants(fd_watcher *self)
{
    TransportObject *transport = self->loop->fds[self->fd].transport;

    return transport == NULL ? 0 : transport->watched;
}

/* Is it enough to be told of changes? */
static bool
waits_for_changes(fd_watcher *self)
{
    for (fd_waiter *waiter = self->first; waiter != NULL;
         waiter = waiter->next) {
        if (waiter->again) {
            return false;
        }
    }
    return COMPAT_REPORTS_CHANGES && self->reader == NULL &&
        self->writer == NULL && transport_wants(self) == 0;
}

static void
link_waiter(fd_watcher *self, fd_waiter *waiter)
{
    waiter->watcher = self;
    waiter->next = NULL;
    waiter->previous = self->last;
    *(self->last == NULL ? &self->first : &self->last->next) = waiter;
    self->last = waiter;
    self->loop->waiters++;
    Py_INCREF(waiter->owner);
}

/* The reference to the owner becomes the caller's. */
static void
unlink_waiter(fd_waiter *waiter)
{
    fd_watcher *self = waiter->watcher;

    *(waiter->previous == NULL ? &self->first : &waiter->previous->next) =
        waiter->next;
    *(waiter->next == NULL ? &self->last : &waiter->next->previous) =
        waiter->previous;
    waiter->watcher = NULL;
    self->loop->waiters--;
}

/* Its turn comes behind the callbacks that wait already, and its task's behind
   that: on stock asyncio the call is a callback of add_reader().  Runs
   Python. */
static void
wake_one(fd_waiter *waiter)
{
    LoopObject *loop = waiter->watcher->loop;
    PyObject *owner = waiter->owner;

    unlink_waiter(waiter);
    if (Ready_push(&loop->ready, READY_RESOLVE, waiter->future, NULL, NULL) <
        0) {
        Loop_report(loop, "Cannot wake a call that waits for a socket",
                    "future", waiter->future);
    }
    Py_DECREF(owner);
}

/* All of them, for one may not take all that has come.  Runs Python. */
static void
wake(fd_watcher *self, int events)
{
    size_t count = 0;

    for (fd_waiter *waiter = self->first; waiter != NULL;
         waiter = waiter->next) {
        count += (waiter->event & events) != 0;
    }
    for (; count > 0; count--) {
        fd_waiter *waiter = self->first;
        while (waiter != NULL && !(waiter->event & events)) {
            waiter = waiter->next;
        }
        if (waiter == NULL) {
            break;
        }
        wake_one(waiter);
    }
}

static void
on_watcher_closed(uv_handle_t *uv)
{
    fd_watcher *self = CONTAINER_OF(uv, fd_watcher, uv);

    Loop_enter(self->loop);
    PyMem_Free(self);
}

/* From now on the transport watches by itself again. */
static void
give_back(LoopObject *loop, TransportObject *transport)
{
    int err = 0;

    if (Fds_note_armed(loop, transport->fd) < 0 ||
        (err = uv_poll_start(transport->uv, transport->watched,
                             transport->ops->on_event)) < 0) {
        transport->watched = 0;
        if (err < 0) {
            raise_uv(err);
        }
        Loop_report(loop, "Cannot watch the connection", "transport",
                    (PyObject *)transport);
    }
}

/* Nobody may wait, but the descriptor's transport.  Runs Python. */
void
Watcher_close(fd_entry *entry)
{
    fd_watcher *watcher = entry->watcher;
    TransportObject *transport = entry->transport;
    PyObject *file = watcher->file;

    entry->watcher = NULL;
    watcher->file = NULL;
    Py_CLEAR(watcher->sock);
    uv_close((uv_handle_t *)&watcher->uv, on_watcher_closed);
    if (transport != NULL && transport->watched != 0) {
        give_back(watcher->loop, transport);
    }
    Py_XDECREF(file);
}

static void on_watched(uv_poll_t *uv, int status, int events);

/* Have uv watch for what somebody waits for, or close the watcher, unless it
   costs nothing to keep it for the next sock_*() call: each of uv's watchers
   costs five system calls.  Keeping is for changes only, which nobody needs to
   take, and for a socket of which we notice that it is another one.  Runs
   Python if it closes. */
int
Watcher_update(fd_watcher *self)
{
    LoopObject *loop = self->loop;
    int wanted = Watcher_wanted(self);
    bool changes = waits_for_changes(self);

    self->uv.data = NULL;
    if (wanted == 0) {
        if (self->changes && self->events != 0 && self->sock != NULL &&
            loop->fds[self->fd].transport == NULL) {
            self->uv.data = loop; /* how _open_handles() knows the loop's */
        }
        else {
            Watcher_close(&loop->fds[self->fd]);
        }
        return 0;
    }
    wanted |= transport_wants(self);
    if (changes && self->changes) {
        if ((self->events & wanted) == wanted) {
            return 0;
        }
        wanted |= self->events;
    }
    else if (changes == self->changes && self->events == wanted) {
        return 0;
    }
    if (Fds_note_armed(loop, self->fd) < 0) {
        return -1;
    }
    int err = uv_poll_start(&self->uv, wanted, on_watched);
    if (err < 0) {
        raise_uv(err);
        return -1;
    }
    self->events = wanted;
    self->changes = changes;
    self->unwanted = 0;
    return 0;
}

/* Where it cannot fail but for want of memory.  Runs Python. */
static void
update_or_report(fd_watcher *self)
{
    LoopObject *loop = self->loop;

    if (Watcher_update(self) < 0) {
        Loop_report(loop, "Cannot watch a descriptor", NULL, NULL);
    }
}

/* NULL: it was closed. */
static fd_entry *
entry_of(fd_watcher *self)
{
    fd_entry *entry = Fds_find(self->loop, self->fd);

    return entry != NULL && entry->watcher == self ? entry : NULL;
}

static void
on_watched(uv_poll_t *uv, int status, int events)
{
    fd_watcher *self = CONTAINER_OF(uv, fd_watcher, uv);

    Loop_enter(self->loop);
    if (status < 0) {
        /* POLLERR, for which libuv has stopped the watcher.  As with
           selectors both sides learn of it by what they try to do, and
           callbacks again in each turn until they leave. */
        self->events = 0;
        events = UV_READABLE | UV_WRITABLE;
    }
    if ((events & UV_READABLE) && self->reader != NULL) {
        queue_handle(self, self->reader);
    }
    if ((events & UV_WRITABLE) && self->writer != NULL) {
        queue_handle(self, self->writer);
    }
    if (self->changes) {
        self->unwanted =
            events & Watcher_wanted(self) ? 0 : self->unwanted + 1;
        if (self->unwanted >= MAX_UNWANTED) {
            self->changes = false; /* have uv watch for what is wanted */
        }
        else if (self->first == NULL && self->events != 0) {
            return;
        }
    }
    wake(self, events); /* runs Python */
    fd_entry *entry = entry_of(self);
    if (entry != NULL && (transport_wants(self) & events)) {
        /* Runs Python. */
        entry->transport->ops->on_event(entry->uv, status, events);
        entry = entry_of(self);
    }
    if (entry != NULL) {
        update_or_report(self);
    }
}

int
Watcher_open(LoopObject *self, fd_entry *entry, int fd)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0) {
        raise_uv(-errno);
        return -1;
    }
    fd_watcher *watcher = PyMem_Calloc(1, sizeof(fd_watcher));
    if (watcher == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    TransportObject *transport = entry->transport;
    if (transport != NULL && transport->watched != 0) {
        uv_poll_stop(entry->uv);
        /* See Transport_watch(): it may be more than it waits for. */
        transport->watched &= (transport->reading ? UV_READABLE : 0) |
            (transport->writing ? UV_WRITABLE : 0);
    }
    int err = uv_poll_init(&self->uv, &watcher->uv, fd);
    if (err < 0) {
        PyMem_Free(watcher);
        if (transport != NULL && transport->watched != 0) {
            give_back(self, transport);
        }
        raise_uv(err);
        return -1;
    }
    if (!(flags & O_NONBLOCK)) {
        /* libuv has made it non-blocking, also for everybody who shares it:
           standard input is shared with the parent process. */
        (void)fcntl(fd, F_SETFL, flags);
    }
    watcher->loop = self;
    watcher->fd = fd;
    entry->watcher = watcher;
    return 0;
}

/* The entry of a descriptor, for who wants to open its watcher. */
fd_entry *
Fds_reserve_open(LoopObject *self, int fd)
{
    /* The table grows with the number: it must be one of a descriptor. */
    if (fd >= self->fd_count && fcntl(fd, F_GETFD) < 0) {
        raise_uv(-errno);
        return NULL;
    }
    return Fds_reserve(self, fd);
}

/* Before and after a poll. */

size_t
Fds_check_armed(LoopObject *self)
{
    for (size_t i = 0; i < self->armed_count; i++) {
        fd_entry *entry = Fds_find(self, self->armed[i]);

        if (entry == NULL || !is_unwatchable(self->armed[i])) {
            continue;
        }
        if (entry->transport != NULL && entry->uv != NULL) {
            uv_poll_stop(entry->uv);
            entry->transport->watched = 0;
        }
        if (entry->watcher != NULL) {
            uv_poll_stop(&entry->watcher->uv);
            entry->watcher->events = 0;
            wake(entry->watcher, UV_READABLE | UV_WRITABLE); /* runs Python */
        }
    }
    return self->armed_count;
}

void
Fds_after_poll(LoopObject *self, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        fd_entry *entry = Fds_find(self, self->armed[i]);
        fd_watcher *watcher = entry == NULL ? NULL : entry->watcher;

        if (watcher != NULL && watcher->changes && watcher->events != 0 &&
            !compat_report_changes(&self->uv, watcher->fd, watcher->events)) {
            watcher->changes = false;
        }
    }
    self->armed_count -= count;
    memmove(self->armed, self->armed + count,
            self->armed_count * sizeof(*self->armed));
}

/* Calls that wait for a socket. */

/* Wake those of a descriptor whose socket has it no longer.  Runs Python. */
static void
wake_closed(LoopObject *self, int fd)
{
    for (size_t checked = 0;;) {
        fd_entry *entry = Fds_find(self, fd);
        fd_watcher *watcher = entry == NULL ? NULL : entry->watcher;
        fd_waiter *waiter = watcher == NULL ? NULL : watcher->first;

        for (size_t i = 0; i < checked && waiter != NULL; i++) {
            waiter = waiter->next;
        }
        if (waiter == NULL) {
            return;
        }
        PyObject *owner = Py_NewRef(waiter->owner);
        PyObject *value =
            PyObject_CallMethodNoArgs(waiter->sock, self->state->str_fileno);
        long number = value == NULL ? -1 : PyLong_AsLong(value);
        Py_XDECREF(value);
        PyErr_Clear(); /* the call will meet it, too */
        if (number == fd) {
            checked++;
        }
        else if (waiter->watcher == watcher) {
            watcher->changes = false; /* it is not to be kept */
            wake_one(waiter);
        }
        Py_DECREF(owner);
    }
}

void
Fds_check_closed(LoopObject *self)
{
    for (int fd = 0; fd < self->fd_count; fd++) {
        fd_watcher *watcher = self->fds[fd].watcher;

        if (watcher == NULL) {
            continue;
        }
        if (watcher->first != NULL) {
            wake_closed(self, fd); /* runs Python */
        }
        else if (watcher->sock != NULL &&
                 compat_refers_to(watcher->sock, Py_None)) {
            watcher->changes = false;
        }
        fd_entry *entry = Fds_find(self, fd);
        if (entry != NULL && entry->watcher != NULL) {
            update_or_report(entry->watcher);
        }
    }
}

/* The watcher that the call is to join, opened if need be.  Runs Python. */
static fd_watcher *
watcher_for(LoopObject *self, int fd, PyObject *sock)
{
    fd_entry *entry = Fds_reserve_open(self, fd);

    if (entry == NULL) {
        return NULL;
    }
    fd_watcher *watcher = entry->watcher;
    if (watcher != NULL &&
        (watcher->sock == NULL || !compat_refers_to(watcher->sock, sock))) {
        /* The number may be another file's than it was: register it anew. */
        wake_closed(self, fd);
        entry = Fds_reserve(self, fd);
        if (entry == NULL) {
            return NULL;
        }
        if (entry->watcher != NULL) {
            Py_CLEAR(entry->watcher->sock);
            entry->watcher->events = 0;
            if (Watcher_wanted(entry->watcher) == 0) {
                Watcher_close(entry);
            }
        }
        watcher = entry->watcher;
    }
    if (watcher == NULL) {
        if (Watcher_open(self, entry, fd) < 0) {
            return NULL;
        }
        watcher = entry->watcher;
    }
    if (watcher->sock == NULL) {
        watcher->sock = PyWeakref_NewRef(sock, NULL);
        if (watcher->sock == NULL) {
            PyErr_Clear();
        }
    }
    return watcher;
}

int
Fds_wait(LoopObject *self, fd_waiter *waiter, int fd)
{
    if (Fds_check_open(self) < 0) {
        return -1;
    }
    Py_XSETREF(waiter->future, Future_create(self));
    if (waiter->future == NULL) {
        return -1;
    }
    fd_watcher *watcher = watcher_for(self, fd, waiter->sock);
    if (watcher == NULL) {
        return -1;
    }
    /* As in asyncio, where the call is such a callback. */
    HandleObject **slot =
        waiter->event == UV_READABLE ? &watcher->reader : &watcher->writer;
    HandleObject *old = *slot;
    *slot = NULL;
    link_waiter(watcher, waiter);
    int result = Watcher_update(watcher);
    if (old != NULL && cancel_callback(old) < 0) {
        result = -1;
    }
    if (result < 0) {
        Fds_end_wait(waiter);
    }
    return result;
}

void
Fds_end_wait(fd_waiter *waiter)
{
    fd_watcher *watcher = waiter->watcher;

    if (watcher != NULL) {
        unlink_waiter(waiter);
        if (Watcher_wanted(watcher) == 0) {
            Watcher_update(watcher); /* cannot fail */
        }
        Py_DECREF(waiter->owner);
    }
}

void
Fds_let_go(LoopObject *self, int fd)
{
    fd_entry *entry = Fds_find(self, fd);

    if (entry != NULL && entry->watcher != NULL &&
        Watcher_wanted(entry->watcher) == 0) {
        Watcher_close(entry);
    }
}

/* The end. */

/* Cancel the callbacks of a descriptor and have calls that wait for it try
   again, unless the loop closes.  Runs Python. */
static void
forget(LoopObject *self, int fd)
{
    fd_entry *entry = Fds_find(self, fd);
    fd_watcher *watcher = entry == NULL ? NULL : entry->watcher;

    if (watcher == NULL) {
        return;
    }
    HandleObject *reader = watcher->reader;
    HandleObject *writer = watcher->writer;
    watcher->reader = watcher->writer = NULL;
    while (watcher->first != NULL) {
        fd_waiter *waiter = watcher->first;
        if (self->closed) {
            unlink_waiter(waiter);
            Py_DECREF(waiter->owner);
        }
        else {
            wake_one(waiter);
        }
    }
    entry = Fds_find(self, fd);
    if (entry != NULL && entry->watcher == watcher) {
        Watcher_close(entry);
    }
    if ((reader != NULL && cancel_callback(reader) < 0) ||
        (writer != NULL && cancel_callback(writer) < 0)) {
        PyErr_WriteUnraisable((PyObject *)self);
    }
}

void
Fds_release(TransportObject *transport)
{
    LoopObject *self = transport->home;

    if (transport->uv != NULL) {
        if (uv_is_active((uv_handle_t *)transport->uv)) {
            uv_poll_stop(transport->uv);
        }
        transport->uv->data = self;
        transport->uv = NULL;
    }
    Loop_poll_next(self);  // The other end reads of the end.
    transport->open = false;
    transport->watched = 0;
    self->fds[transport->fd].transport = NULL;
    Py_DECREF(transport);
}

int
Fds_poll_init(LoopObject *self, uv_poll_t *uv, int fd)
{
    fd_entry *entry = Fds_find(self, fd);

    if (entry != NULL && entry->transport != NULL) {
        /* Somebody has closed its descriptor.  Were its uvhandle closed only
           later, libuv would stop watching the newcomer. */
        TransportObject *transport =
            (TransportObject *)Py_NewRef(entry->transport);
        Fds_release(transport);
        Py_DECREF(transport);
    }
    forget(self, fd);
    return self->closed ? UV_ECANCELED : uv_poll_init(&self->uv, uv, fd);
}

/* What every epoll takes. */
static bool
is_socket_or_pipe(int fd)
{
    struct stat status;

    return fstat(fd, &status) == 0 &&
        (S_ISSOCK(status.st_mode) || S_ISFIFO(status.st_mode));
}

static void
on_uv_closed(uv_handle_t *uv)
{
    Loop_enter(CONTAINER_OF(uv->loop, LoopObject, uv));
    PyMem_Free(uv);
}

static void
drop_uv(fd_entry *entry)
{
    if (entry->uv != NULL) {
        uv_close((uv_handle_t *)entry->uv, on_uv_closed);
        entry->uv = NULL;
    }
}

int
Fds_take_uv(LoopObject *self, int fd, uv_poll_t **result)
{
    fd_entry *entry = &self->fds[fd];

    if (entry->uv != NULL && is_socket_or_pipe(fd)) {
        int flags = fcntl(fd, F_GETFL);
        /* What libuv does when it opens one. */
        if (flags < 0 ||
            (!(flags & O_NONBLOCK) &&
             fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)) {
            return -errno;
        }
        forget(self, fd);
        if (self->closed) {
            return UV_ECANCELED;
        }
        *result = self->fds[fd].uv;
        return 0;
    }
    drop_uv(entry);
    uv_poll_t *uv = PyMem_Malloc(sizeof(*uv));
    int err = uv == NULL ? UV_ENOMEM : Fds_poll_init(self, uv, fd);
    if (err < 0) {
        PyMem_Free(uv);
        return err;
    }
    uv->data = self;
    *result = self->fds[fd].uv = uv;
    return 0;
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
        drop_uv(&self->fds[fd]);
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
        TransportObject *transport = self->fds[fd].transport;
        /* Idle ones visit themselves: they may be found to be garbage. */
        if (transport != NULL && !Transport_is_idle(transport)) {
            Py_VISIT(transport);
        }
        if (watcher == NULL) {
            continue;
        }
        for (fd_waiter *waiter = watcher->first; waiter != NULL;
             waiter = waiter->next) {
            Py_VISIT(waiter->owner);
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

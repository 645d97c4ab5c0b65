/* Signals wake the loop through signal.set_wakeup_fd(): libuv restarts its
   poll after EINTR, so Ctrl-C would otherwise wait for the next event.  The
   bytes are signal numbers; whose handler was set by add_signal_handler() is
   called by the standard library's _process_self_data(). */
#include "ouroloop.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

static void
on_signal(uv_poll_t *watcher, int Py_UNUSED(status), int Py_UNUSED(events))
{
    LoopObject *self = CONTAINER_OF(watcher, LoopObject, signal_watcher);
    char numbers[256];

    Loop_enter(self);
    ssize_t count = read(self->signal_fds[0], numbers, sizeof(numbers));
    /* Handlers of signal.signal().  What they raise leaves run_forever(), as
       it would leave any other Python code; KeyboardInterrupt is one. */
    if (PyErr_CheckSignals() < 0) {
        Loop_fail(self);
    }
    if (count <= 0) {
        return;
    }
    if (self->outer_wakeup_fd >= 0) {
        /* Whoever waited for signals before this run still gets them. */
        ssize_t written = write(self->outer_wakeup_fd, numbers, count);
        (void)written;
    }
    PyObject *result = PyObject_CallMethod(
        (PyObject *)self, "_process_self_data", "y#", numbers, count);
    if (result == NULL) {
        Loop_report(self, "Exception in signal processing", NULL, NULL);
    }
    Py_XDECREF(result);
}

static int
open_pipe(LoopObject *self)
{
    int err = uv_pipe(self->signal_fds, UV_NONBLOCK_PIPE, UV_NONBLOCK_PIPE);

    if (err == 0) {
        err = Fds_poll_init(self, &self->signal_watcher, self->signal_fds[0]);
        if (err < 0) {
            close(self->signal_fds[0]);
            close(self->signal_fds[1]);
        }
    }
    if (err < 0) {
        self->signal_fds[0] = self->signal_fds[1] = -1;
        raise_uv(err);
        return -1;
    }
    self->signal_watcher.data = self;
    uv_poll_start(&self->signal_watcher, UV_READABLE, on_signal);
    return 0;
}

int
Signals_fd(LoopObject *self)
{
    if (self->signal_fds[1] < 0 && open_pipe(self) < 0) {
        return -1;
    }
    return self->signal_fds[1];
}

/* signal.set_wakeup_fd(fd): the fd it replaces, or -1; -2: exception. */
static int
exchange_wakeup_fd(LoopObject *self, int fd)
{
    PyObject *before =
        PyObject_CallFunction(self->state->set_wakeup_fd, "i", fd);
    if (before == NULL) {
        return -2;
    }
    long result = PyLong_AsLong(before);
    Py_DECREF(before);
    return (int)result;
}

int
Signals_attach(LoopObject *self)
{
    /* Elsewhere Python neither runs signal handlers nor lets set_wakeup_fd()
       be called. */
    if (!_PyOS_IsMainThread() ||
        PyInterpreterState_Get() != PyInterpreterState_Main()) {
        return 0;
    }
    int fd = Signals_fd(self);
    int before = fd < 0 ? -2 : exchange_wakeup_fd(self, fd);
    if (before == -2) {
        return -1;
    }
    /* Attached again, after remove_signal_handler() gave it up, what is
       outside has not changed. */
    if (before != fd && !self->signal_attached) {
        self->outer_wakeup_fd = before;
    }
    self->signal_attached = true;
    return 0;
}

int
Signals_detach(LoopObject *self)
{
    if (!self->signal_attached) {
        return 0;
    }
    int current = exchange_wakeup_fd(self, self->outer_wakeup_fd);
    if (current >= 0 && current != self->signal_fds[1]) {
        /* Somebody else took it during the run: let them have it. */
        current = exchange_wakeup_fd(self, current);
    }
    self->outer_wakeup_fd = -1;
    self->signal_attached = false;
    return current == -2 ? -1 : 0;
}

void
Signals_close(LoopObject *self)
{
    if (Signals_detach(self) < 0) {
        PyErr_WriteUnraisable((PyObject *)self);
    }
    if (self->signal_fds[0] < 0) {
        return;
    }
    uv_close((uv_handle_t *)&self->signal_watcher, NULL);
    close(self->signal_fds[0]);
    close(self->signal_fds[1]);
    self->signal_fds[0] = self->signal_fds[1] = -1;
}

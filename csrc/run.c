/* One turn of the loop: poll, due timers, ready batch.

   The GIL.  uv_run() is entered with the GIL held.  It is let go at most once,
   just before a poll that may block, and taken back by the first callback that
   needs Python (Loop_enter) or, when none does, right after the poll.  A poll
   with work ready never blocks and keeps it. */
#include "ouroloop.h"

/* With work ready the kernel is asked this often, and in the turn after
   anything was sent: each poll costs as much as several task steps, and input
   should not wait much longer than that. */
enum { POLL_INTERVAL_NS = 50 * 1000 };
/* Between two looks at the clock, at most so many entries. */
enum { CLOCK_INTERVAL = 16 };
/* So soon is noticed that a socket was closed under a call that waits. */
enum { LOOK_AFTER_MS = 50 };

static void
on_before_poll(uv_prepare_t *prepare)
{
    LoopObject *self = CONTAINER_OF(prepare, LoopObject, before_poll);

    self->looked = false;
    /* Here, not before uv_run(): its timers arm descriptors, too. */
    if (self->armed_count > 0) {
        self->armed_checked = Fds_check_armed(self); /* runs Python */
    }
    if (!self->may_block) {
        return;
    }
    /* A callback of this uv_run(), or a thread during it, may have queued
       work; stopping makes the poll's timeout zero.  Not a question for
       uv_backend_timeout(): it is also 0 while a watcher waits to be
       registered, and then the poll may block all the same. */
    if (self->ready.count > 0 || self->error != NULL) {
        uv_stop(&self->uv);
        return;
    }
    /* Set with the GIL held: a thread that queues work must see that the
       loop needs a wake-up. */
    self->wake_sent = false;
    self->parked = PyThreadState_Get();
    (void)PyEval_SaveThread();
}

static void
on_after_poll(uv_check_t *check)
{
    Loop_enter(CONTAINER_OF(check, LoopObject, after_poll));
}

static void
on_wake(uv_async_t *wake)
{
    /* What woke the loop is on the ready queue already. */
    Loop_enter(CONTAINER_OF(wake, LoopObject, wake));
}

/* The kernel says nothing when a socket is closed while a sock_*() call waits
   for it.  So a little after anything has run that may have closed one, those
   that are waited for are looked at: no call costs more for it, and a loop
   that idles is not woken again and again. */
static void
on_time_to_look(uv_timer_t *timer)
{
    LoopObject *self = CONTAINER_OF(timer, LoopObject, closed_timer);

    Loop_enter(self);
    self->ran = false;
    self->looked = true;
    Fds_check_closed(self);
}

static void
look_soon(LoopObject *self)
{
    if (self->ran && !uv_is_active((uv_handle_t *)&self->closed_timer)) {
        uv_timer_start(&self->closed_timer, on_time_to_look, LOOK_AFTER_MS, 0);
    }
}

int
Run_init(LoopObject *self)
{
    int err = uv_loop_init(&self->uv);
    if (err < 0) {
        raise_uv(err);
        return -1;
    }
    self->uv_open = true;
    Fork_track(self);
    /* Only uv_async_init() can fail, for want of a file descriptor. */
    err = uv_async_init(&self->uv, &self->wake, on_wake);
    if (err < 0) {
        uv_loop_close(&self->uv);
        self->uv_open = false;
        Fork_untrack(self);
        raise_uv(err);
        return -1;
    }
    uv_prepare_init(&self->uv, &self->before_poll);
    uv_check_init(&self->uv, &self->after_poll);
    /* How _open_handles() knows the loop's own. */
    uv_timer_init(&self->uv, &self->closed_timer);
    self->wake.data = self->before_poll.data = self->after_poll.data = self;
    self->closed_timer.data = self;
    uv_prepare_start(&self->before_poll, on_before_poll);
    uv_check_start(&self->after_poll, on_after_poll);
    return 0;
}

/* Give I/O its turn.  -1 with the exception that must leave run_forever().
   Runs Python. */
static int
poll(LoopObject *self, bool may_block)
{
    if (self->polling) {
        PyErr_SetString(PyExc_RuntimeError,
                        "This event loop is waiting for events already");
        return -1;
    }
    if (Registry_leave(self) < 0) {
        return -1;
    }
    self->may_block = may_block;
    self->armed_checked = 0;
    self->found_count = self->batch = 0;
    self->poll_next = false;
    self->polling = true;
    uv_run(&self->uv, may_block ? UV_RUN_ONCE : UV_RUN_NOWAIT);
    Loop_enter(self);
    self->polling = false;
    if (self->armed_checked > 0) {
        Fds_after_poll(self, self->armed_checked);
    }
    self->ran = self->ran || !self->looked;
    self->last_poll_ns = uv_hrtime();
    if (self->first_found != NULL) {
        Stream_end_poll(self);
    }
    if (self->error != NULL) {
        PyErr_SetRaisedException(Py_NewRef(self->error));
        Py_CLEAR(self->error);
        return -1;
    }
    return PyErr_CheckSignals();
}

/* Run one entry; steals its references.  Runs Python. */
static inline int
run_entry(LoopObject *self, ready_entry entry)
{
    enum ready_kind kind = entry.object & READY_KIND_MASK;
    PyObject *object = (PyObject *)(entry.object & ~READY_KIND_MASK);
    int result = 0;

    switch (kind) {
    case READY_STEP:
        result = Task_step(object, entry.arg);
        break;
    case READY_WAKEUP:
        result = Task_wakeup(object, entry.arg);
        break;
    case READY_HANDLE:
        result = Registry_leave(self);
        if (result == 0) {
            result = Handle_run((HandleObject *)object);
        }
        Handle_done((HandleObject *)object);
        break;
    case READY_CALL:
        result = Registry_leave(self);
        if (result == 0) {
            result = call_in_context(self, object, entry.arg, entry.context);
        }
        break;
    case READY_NATIVE:
        result = self->current_task == NULL ? 0 : Registry_leave(self);
        if (result == 0) {
            ((native_call)entry.arg)(object);
        }
        entry.arg = NULL;
        break;
    case READY_RESOLVE:
        result = Registry_leave(self);
        if (result == 0 && Future_resolve(self, object, Py_None) < 0) {
            Loop_report(self, "Cannot wake a call that waits for a socket",
                        "future", object);
        }
        break;
    }
    Py_DECREF(object);
    Py_XDECREF(entry.arg);
    Py_XDECREF(entry.context);
    return result;
}

/* Debug mode: time the entry and log it when it was slow.  Only a Handle can
   be named; in debug mode every callback is one.  Steals the references. */
static int
run_entry_timed(LoopObject *self, ready_entry entry)
{
    PyObject *object = (PyObject *)(entry.object & ~READY_KIND_MASK);
    HandleObject *handle;

    if ((entry.object & READY_KIND_MASK) != READY_HANDLE) {
        return run_entry(self, entry);
    }
    handle = (HandleObject *)object;
    if (handle->cancelled) {
        Handle_done(handle);
        Py_DECREF(object);
        return 0;
    }
    int result = Registry_leave(self);
    if (result == 0) {
        PyObject *value = NULL;
        Py_XSETREF(self->current_handle, Py_NewRef(object));
        uint64_t start_ns = uv_hrtime();
        result = Handle_run(handle);
        double seconds = (double)(uv_hrtime() - start_ns) / 1e9;
        if (result == 0) {
            value = PyObject_CallMethod((PyObject *)self, "_log_if_slow", "Od",
                                        object, seconds);
            result = value == NULL ? -1 : 0;
            Py_XDECREF(value);
        }
        Py_CLEAR(self->current_handle);
    }
    Handle_done(handle);
    Py_DECREF(object);
    return result;
}

/* Run the entries that are there now; what they add waits for the next
   turn. */
static int
run_entries(LoopObject *self)
{
    ready_queue *ready = &self->ready;

    self->batch = ready->count;
    self->entries_since_poll += ready->count;
    self->ran = self->ran || ready->count > 0;
    for (size_t todo = ready->count; todo > 0 && ready->count > 0; todo--) {
        ready_entry entry = ready->entries[ready->head];
        ready->head = (ready->head + 1) & (ready->capacity - 1);
        ready->count--;
        int result = self->debug ? run_entry_timed(self, entry)
                                 : run_entry(self, entry);
        if (self->unflushed != NULL) {
            PyObject *exc = result < 0 ? PyErr_GetRaisedException() : NULL;
            Stream_flush(self); /* runs Python */
            if (exc != NULL) {
                PyErr_SetRaisedException(exc);
            }
        }
        if (result < 0 || Fork_check(self) < 0) {
            return -1;
        }
        if (self->error != NULL) {
            PyErr_SetRaisedException(Py_NewRef(self->error));
            Py_CLEAR(self->error);
            return -1;
        }
    }
    return 0;
}

static int
run_batch(LoopObject *self)
{
    /* What transports are given to write waits for the end of the entry. */
    self->collecting = true;
    int result = run_entries(self);
    self->collecting = false;
    return result;
}

/* -1 with the exception that must leave run_forever(). */
static int
turn(LoopObject *self)
{
    if (Fork_check(self) < 0) {
        return -1;
    }
    if (self->timers.count > 0 && Timers_drop_cancelled(self) < 0) {
        return -1;
    }
    if (self->ready.count == 0 && !self->stopping) {
        if (self->waiters > 0) {
            look_soon(self);
        }
        if (Timers_arm(self) < 0 || poll(self, true) < 0) {
            return -1;
        }
        self->entries_since_poll = 0;
    }
    else if (self->entries_since_poll >= CLOCK_INTERVAL || self->poll_next ||
             self->stopping) {
        self->entries_since_poll = 0;
        if ((self->poll_next || self->stopping ||
             uv_hrtime() - self->last_poll_ns >= POLL_INTERVAL_NS) &&
            poll(self, false) < 0) {
            return -1;
        }
    }
    if (Timers_push_due(self) < 0) {
        return -1;
    }
    return run_batch(self);
}

int
Loop_run(LoopObject *self)
{
    int result;

    Loop_poll_next(self);
    do {
        result = turn(self);
    } while (result == 0 && !self->stopping);
    if (self->current_task != NULL) {
        PyObject *exc = PyErr_GetRaisedException();
        if (Registry_leave(self) < 0) {
            result = -1;
        }
        if (exc != NULL) {
            PyErr_SetRaisedException(exc);
        }
    }
    return result;
}

/* Neither the task whose step it may be within, nor what that has written,
   waits for this turn to end. */
static int
step_aside(LoopObject *self, PyObject *task)
{
    if (task == self->current_task) {
        return Registry_leave(self);
    }
    return task == Py_None
        ? 0
        : Registry_leave_checked(self->state, (PyObject *)self, task);
}

static int
step_back(LoopObject *self, PyObject *task, bool own)
{
    if (Registry_leave(self) < 0) {
        return -1;
    }
    if (own) {
        return Registry_enter(self, task);
    }
    return task == Py_None
        ? 0
        : Registry_enter_checked(self->state, (PyObject *)self, task);
}

int
Loop_turn(LoopObject *self)
{
    PyObject *task =
        PyObject_CallOneArg(self->state->current_task, (PyObject *)self);
    bool own = task == self->current_task, collecting = self->collecting;
    int result = -1;

    if (task == NULL || step_aside(self, task) < 0) {
        goto done;
    }
    if (self->unflushed != NULL) {
        Stream_flush(self);
    }
    Loop_poll_next(self);
    result = turn(self);
    self->collecting = collecting;
    PyObject *exc = PyErr_GetRaisedException();
    if (step_back(self, task, own) < 0) {
        result = -1;
    }
    if (exc != NULL) {
        PyErr_SetRaisedException(exc);
    }
done:
    Py_XDECREF(task);
    return result;
}

int
Loop_close_uv(LoopObject *self)
{
    if (!self->uv_open) {
        return 0;
    }
    self->closed = true;
    Ready_clear(&self->ready);
    Timers_clear(self);
    Fds_close(self);
    Timers_close(self);
    Signals_close(self);
    Dns_close(self);
    uv_close((uv_handle_t *)&self->wake, NULL);
    uv_close((uv_handle_t *)&self->before_poll, NULL);
    uv_close((uv_handle_t *)&self->after_poll, NULL);
    uv_close((uv_handle_t *)&self->closed_timer, NULL);
    /* Close callbacks run Python (they drop transports); what that queues on
       a closed loop is refused. */
    self->may_block = false;
    /* Again if uv_stop() was called since the last run. */
    while (uv_loop_alive(&self->uv)) {
        uv_run(&self->uv, UV_RUN_DEFAULT);
    }
    int err = uv_loop_close(&self->uv);
    self->uv_open = false;
    Fork_untrack(self);
    PyMem_Free(self->read_buffer);
    self->read_buffer = NULL;
    PyMem_Free(self->batch_buffer);
    self->batch_buffer = NULL;
    PyMem_Free(self->fds);
    self->fds = NULL;
    self->fd_count = 0;
    if (err < 0) {
        raise_uv(err);
        return -1;
    }
    return 0;
}

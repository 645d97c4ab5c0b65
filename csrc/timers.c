/* call_later() and call_at(): a binary heap of TimerHandles.  Entries sift as
   heapq's do, cancelled timers stay in the heap and are swept by asyncio's
   rule, so that timers with equal deadlines run in asyncio's order.

   A wait in the kernel ends at the earliest deadline: on Linux by a timerfd,
   to the nanosecond; elsewhere by a uv_timer_t, up to a millisecond late. */
#include "ouroloop.h"

#include <math.h>
#if COMPAT_TIMERFD
#include <sys/timerfd.h>
#include <unistd.h>
#endif

/* asyncio's _MIN_SCHEDULED_TIMER_HANDLES and its fraction of one half. */
enum { SWEEP_MINIMUM = 100 };
/* A longer wait is cut into turns: nothing happens in between. */
#define LONGEST_WAIT 86400.0
/* A shorter one costs more than it lasts; timers close together share it. */
enum { SHORTEST_WAIT_NS = 50 * 1000 };

double
Loop_now(LoopObject *self)
{
    if (!self->custom_time) {
        return (double)uv_hrtime() / 1e9;
    }
    PyObject *now =
        PyObject_CallMethodNoArgs((PyObject *)self, self->state->str_time);
    double result = now == NULL ? -1.0 : PyFloat_AsDouble(now);
    Py_XDECREF(now);
    return result;
}

static void
sift_down(timer_entry *entries, size_t start, size_t position)
{
    timer_entry moved = entries[position];

    while (position > start) {
        size_t parent = (position - 1) / 2;
        if (!(moved.when < entries[parent].when)) {
            break;
        }
        entries[position] = entries[parent];
        position = parent;
    }
    entries[position] = moved;
}

/* Bubble the smaller child up until a leaf is reached, then put the entry
   there and sift it down: heapq's way, hence its order of equals. */
static void
sift_up(timer_entry *entries, size_t count, size_t position)
{
    size_t start = position, child = 2 * position + 1;
    timer_entry moved = entries[position];

    while (child < count) {
        if (child + 1 < count &&
            !(entries[child].when < entries[child + 1].when)) {
            child++;
        }
        entries[position] = entries[child];
        position = child;
        child = 2 * position + 1;
    }
    entries[position] = moved;
    sift_down(entries, start, position);
}

static TimerHandleObject *
pop(timer_heap *self)
{
    TimerHandleObject *timer = self->entries[0].timer;

    self->entries[0] = self->entries[--self->count];
    if (self->count > 1) {
        sift_up(self->entries, self->count, 0);
    }
    timer->scheduled = false;
    return timer;
}

int
Timers_push(LoopObject *loop, TimerHandleObject *timer)
{
    timer_heap *self = &loop->timers;

    if (self->count == self->capacity) {
        size_t capacity = self->capacity ? self->capacity * 2 : 64;
        timer_entry *entries = self->entries;
        PyMem_Resize(entries, timer_entry, capacity);
        if (entries == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        self->entries = entries;
        self->capacity = capacity;
    }
    self->entries[self->count].when = timer->when;
    self->entries[self->count].timer = (TimerHandleObject *)Py_NewRef(timer);
    timer->scheduled = true;
    sift_down(self->entries, 0, self->count++);
    return 0;
}

/* Of one that is in the heap no more.  Runs Python. */
static void
drop(TimerHandleObject *timer)
{
    Handle_done(&timer->handle);
    Py_DECREF(timer);
}

/* Most timers are cancelled: rebuild the heap without them. */
static int
sweep(timer_heap *self)
{
    size_t count = self->count, kept = 0, dropped = 0;
    TimerHandleObject **husks = PyMem_New(TimerHandleObject *, count);

    if (husks == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (size_t i = 0; i < count; i++) {
        TimerHandleObject *timer = self->entries[i].timer;
        if (timer->handle.cancelled) {
            timer->scheduled = false;
            husks[dropped++] = timer;
        }
        else {
            self->entries[kept++] = self->entries[i];
        }
    }
    self->count = kept;
    self->cancelled = 0;
    for (size_t i = kept / 2; i-- > 0;) {
        sift_up(self->entries, kept, i);
    }
    /* Last, as a weak reference's callback may come back to this heap. */
    while (dropped > 0) {
        drop(husks[--dropped]);
    }
    PyMem_Free(husks);
    return 0;
}

int
Timers_drop_cancelled(LoopObject *loop)
{
    timer_heap *self = &loop->timers;

    if (self->count > SWEEP_MINIMUM && self->cancelled * 2 > self->count) {
        return sweep(self);
    }
    while (self->count > 0 && self->entries[0].timer->handle.cancelled) {
        self->cancelled--;
        drop(pop(self)); /* runs Python */
    }
    return 0;
}

int
Timers_push_due(LoopObject *loop)
{
    timer_heap *self = &loop->timers;

    if (self->count == 0) {
        return 0;
    }
    double now = Loop_now(loop); /* runs Python if it is the user's */
    if (now == -1.0 && PyErr_Occurred()) {
        return -1;
    }
    /* The resolution of the clock, which asyncio allows too. */
    double end = now + 1e-9;
    while (self->count > 0 && self->entries[0].when < end) {
        TimerHandleObject *timer = pop(self);
        int result = Ready_push(&loop->ready, READY_HANDLE, (PyObject *)timer,
                                NULL, NULL);
        Py_DECREF(timer);
        if (result < 0) {
            return -1;
        }
    }
    return 0;
}

/* The wait: open_wake(), set_wake() and close_wake(). */

#if COMPAT_TIMERFD

static void
on_deadline(uv_poll_t *wake, int Py_UNUSED(status), int Py_UNUSED(events))
{
    LoopObject *loop = CONTAINER_OF(wake, LoopObject, timers.wake);

    Loop_enter(loop);
    /* Forces the next Timers_arm() to set the timerfd, which stays readable
       until then. */
    loop->timers.armed_for = -INFINITY;
}

static int
open_wake(LoopObject *loop)
{
    timer_heap *self = &loop->timers;
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);

    if (fd < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    int err = Fds_poll_init(loop, &self->wake, fd);
    if (err < 0) {
        close(fd);
        raise_uv(err);
        return -1;
    }
    self->wake_fd = fd;
    uv_poll_start(&self->wake, UV_READABLE, on_deadline);
    return 0;
}

/* Zero: never. */
static void
set_wake(timer_heap *self, int64_t delay_ns)
{
    struct itimerspec wait = {
        .it_value = {.tv_sec = delay_ns / 1000000000,
                     .tv_nsec = delay_ns % 1000000000},
    };
    timerfd_settime(self->wake_fd, 0, &wait, NULL);
}

static void
close_wake(timer_heap *self)
{
    uv_close((uv_handle_t *)&self->wake, NULL);
    close(self->wake_fd);
}

#else

static void
on_deadline(uv_timer_t *wake)
{
    LoopObject *loop = CONTAINER_OF(wake, LoopObject, timers.wake);

    Loop_enter(loop);
    loop->timers.armed_for = -INFINITY;
    /* It may expire before the poll of the same uv_run(), which would then
       find no timer left and wait for ever. */
    uv_stop(&loop->uv);
}

static int
open_wake(LoopObject *loop)
{
    uv_timer_init(&loop->uv, &loop->timers.wake);
    return 0;
}

/* Zero: never. */
static void
set_wake(timer_heap *self, int64_t delay_ns)
{
    if (delay_ns == 0) {
        uv_timer_stop(&self->wake);
        return;
    }
    /* It counts from libuv's idea of now, which is that of its last poll. */
    uv_update_time(self->wake.loop);
    uv_timer_start(&self->wake, on_deadline, (delay_ns + 999999) / 1000000, 0);
}

static void
close_wake(timer_heap *self)
{
    uv_close((uv_handle_t *)&self->wake, NULL);
}

#endif

int
Timers_arm(LoopObject *loop)
{
    timer_heap *self = &loop->timers;
    double when = self->count > 0 ? self->entries[0].when : INFINITY;
    int64_t delay_ns = 0;

    /* Armed too early is harmless: one turn finds nothing due. */
    if (when >= self->armed_for && self->armed_for != -INFINITY) {
        return 0;
    }
    if (!self->wake_open) {
        if (open_wake(loop) < 0) {
            return -1;
        }
        self->wake_open = true;
        self->wake.data = loop;
    }
    if (when != INFINITY) {
        double now = Loop_now(loop); /* runs Python if it is the user's */
        if (now == -1.0 && PyErr_Occurred()) {
            return -1;
        }
        double delay = when - now;
        if (!(delay < LONGEST_WAIT)) {
            delay = LONGEST_WAIT;
            when = now + delay;
        }
        delay_ns = Py_MAX((int64_t)ceil(delay * 1e9), SHORTEST_WAIT_NS);
    }
    set_wake(self, delay_ns);
    self->armed_for = when;
    return 0;
}

void
Timers_clear(LoopObject *loop)
{
    timer_heap old = loop->timers;

    /* What is dropped may run Python that comes back to this heap. */
    loop->timers.entries = NULL;
    loop->timers.capacity = loop->timers.count = loop->timers.cancelled = 0;
    for (size_t i = 0; i < old.count; i++) {
        old.entries[i].timer->scheduled = false;
        drop(old.entries[i].timer);
    }
    PyMem_Free(old.entries);
}

int
Timers_traverse(timer_heap *self, visitproc visit, void *arg)
{
    for (size_t i = 0; i < self->count; i++) {
        int result =
            Handle_visit_as_part(&self->entries[i].timer->handle, visit, arg);
        if (result != 0) {
            return result;
        }
    }
    return 0;
}

void
Timers_close(LoopObject *loop)
{
    timer_heap *self = &loop->timers;

    if (self->wake_open) {
        close_wake(self);
        self->wake_open = false;
    }
}

/* The ready queue: a ring of what runs in the next turn.  A task's step or a
   future's callback stands here as itself; only what a user asked call_soon()
   for is a Handle. */
#include "ouroloop.h"

enum { FIRST_CAPACITY = 64 };

int
Ready_grow(ready_queue *self)
{
    size_t capacity = self->capacity ? self->capacity * 2 : FIRST_CAPACITY;
    ready_entry *entries = PyMem_New(ready_entry, capacity);

    if (entries == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (size_t i = 0; i < self->count; i++) {
        entries[i] = self->entries[(self->head + i) & (self->capacity - 1)];
    }
    PyMem_Free(self->entries);
    self->entries = entries;
    self->capacity = capacity;
    self->head = 0;
    return 0;
}

int
Ready_push_first(ready_queue *self, native_call call, PyObject *object)
{
    if (self->count == self->capacity && Ready_grow(self) < 0) {
        return -1;
    }
    self->head = (self->head - 1) & (self->capacity - 1);
    self->count++;
    self->entries[self->head] = (ready_entry){
        .object = (uintptr_t)Py_NewRef(object) | (uintptr_t)READY_NATIVE,
        .arg = (PyObject *)call,
    };
    return 0;
}

void
Ready_clear(ready_queue *self)
{
    ready_queue old = *self;

    /* What is dropped may run Python that comes back to this queue. */
    *self = (ready_queue){0};
    for (size_t i = 0; i < old.count; i++) {
        ready_entry entry = old.entries[(old.head + i) & (old.capacity - 1)];
        PyObject *object = (PyObject *)(entry.object & ~READY_KIND_MASK);

        switch ((enum ready_kind)(entry.object & READY_KIND_MASK)) {
        case READY_HANDLE:
            Handle_done((HandleObject *)object);
            break;
        case READY_NATIVE:
            entry.arg = NULL;
            break;
        default:
            break;
        }
        Py_DECREF(object);
        Py_XDECREF(entry.arg);
        Py_XDECREF(entry.context);
    }
    PyMem_Free(old.entries);
}

int
Ready_traverse(ready_queue *self, visitproc visit, void *arg)
{
    for (size_t i = 0; i < self->count; i++) {
        ready_entry *entry =
            &self->entries[(self->head + i) & (self->capacity - 1)];
        PyObject *object = (PyObject *)(entry->object & ~READY_KIND_MASK);

        switch ((enum ready_kind)(entry->object & READY_KIND_MASK)) {
        case READY_HANDLE: {
            int result =
                Handle_visit_as_part((HandleObject *)object, visit, arg);
            if (result != 0) {
                return result;
            }
            break;
        }
        case READY_NATIVE:
            Py_VISIT(object);
            break;
        default:
            Py_VISIT(object);
            Py_VISIT(entry->arg);
            Py_VISIT(entry->context);
        }
    }
    return 0;
}

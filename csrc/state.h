/* What one interpreter's copy of the module owns.  Add a name to one list
   and it is created, visited and cleared everywhere. */
#ifndef OUROLOOP_STATE_H
#define OUROLOOP_STATE_H

#include "compat.h"

/* Types made by <Name>_setup_type(), in this order. */
#define STATE_TYPES(X) X(Handle) X(TimerHandle) X(Loop)

/* Interned strings, as state->str_<name>. */
#define STATE_STRINGS(X)                                                   \
    X(call_exception_handler)                                              \
    X(call_soon)                                                           \
    X(callback)                                                            \
    X(context)                                                             \
    X(coro)                                                                \
    X(delay)                                                               \
    X(eager_start)                                                         \
    X(exception)                                                           \
    X(handle)                                                              \
    X(loop)                                                                \
    X(message)                                                             \
    X(name)                                                                \
    X(source_traceback)                                                    \
    X(time)                                                                \
    X(when)

/* Objects of the standard library, as state-><name>. */
#define STATE_IMPORTS(X)                                                   \
    X("asyncio.base_events", BaseEventLoop)                                \
    X("asyncio.events", Handle)                                            \
    X("asyncio.events", TimerHandle)                                       \
    X("asyncio.format_helpers", _format_callback_source)                   \
    X("asyncio.format_helpers", extract_stack)                             \
    X("signal", set_wakeup_fd)

typedef struct module_state {
#define X(name) PyTypeObject *name##Type;
    STATE_TYPES(X)
#undef X
#define X(name) PyObject *str_##name;
    STATE_STRINGS(X)
#undef X
#define X(module, name) PyObject *name;
    STATE_IMPORTS(X)
#undef X
    bool task_kwargs; /* create_task() passes on any keyword argument */
    /* Free lists of handles, linked through their callback field. */
    void *free_handles, *free_timers;
    int free_handle_count, free_timer_count;
} module_state;

extern struct PyModuleDef ouroloop_module;

/* Works for subclasses too; on hot paths keep the pointer in the object. */
static inline module_state *
state_of(PyObject *self)
{
    PyObject *module = PyType_GetModuleByDef(Py_TYPE(self), &ouroloop_module);
    return module == NULL ? NULL : (module_state *)PyModule_GetState(module);
}

#endif

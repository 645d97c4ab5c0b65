/* PyInit and the state of one interpreter's copy of the module. */
#include "ouroloop.h"

#ifndef OUROLOOP_BUILD_FLAGS
#define OUROLOOP_BUILD_FLAGS ""
#endif

static int
import_from(const char *module_name, const char *name, PyObject **slot)
{
    PyObject *module = PyImport_ImportModule(module_name);
    if (module == NULL) {
        return -1;
    }
    *slot = PyObject_GetAttrString(module, name);
    Py_DECREF(module);
    return *slot == NULL ? -1 : 0;
}

/* Does this asyncio's create_task() pass any keyword on to the task? */
static int
find_task_kwargs(module_state *state)
{
    long flags = -1;
    PyObject *function =
        PyObject_GetAttrString(state->BaseEventLoop, "create_task");
    PyObject *code =
        function == NULL ? NULL : PyObject_GetAttrString(function, "__code__");
    PyObject *value =
        code == NULL ? NULL : PyObject_GetAttrString(code, "co_flags");

    if (value != NULL) {
        flags = PyLong_AsLong(value);
    }
    Py_XDECREF(function);
    Py_XDECREF(code);
    Py_XDECREF(value);
    if (flags < 0) {
        return -1;
    }
    state->task_kwargs = (flags & CO_VARKEYWORDS) != 0;
    return 0;
}

static int
add_build_facts(PyObject *module)
{
    if (PyModule_AddStringConstant(module, "LIBUV_COMPILED",
                                   COMPAT_LIBUV_VERSION) < 0 ||
        PyModule_AddStringConstant(module, "LIBUV_RUNNING",
                                   uv_version_string()) < 0 ||
        PyModule_AddStringConstant(module, "BUILD_FLAGS",
                                   OUROLOOP_BUILD_FLAGS) < 0) {
        return -1;
    }
    return 0;
}

static int
module_exec(PyObject *module)
{
    module_state *state = PyModule_GetState(module);

#define X(name)                                            \
    state->str_##name = PyUnicode_InternFromString(#name); \
    if (state->str_##name == NULL) {                       \
        return -1;                                         \
    }
    STATE_STRINGS(X)
#undef X
#define X(module_name, name)                                 \
    if (import_from(module_name, #name, &state->name) < 0) { \
        return -1;                                           \
    }
    STATE_IMPORTS(X)
#undef X
    if (Proof_setup(module, state) < 0 || Streams_setup(state) < 0) {
        return -1;
    }
#define X(name)                                 \
    if (name##_setup_type(module, state) < 0) { \
        return -1;                              \
    }
    STATE_TYPES(X)
#undef X
    if (StreamMethods_setup(state) < 0 || find_task_kwargs(state) < 0) {
        return -1;
    }
    if (Fork_setup(module) < 0) {
        return -1;
    }
    return add_build_facts(module);
}

static int
module_traverse(PyObject *module, visitproc visit, void *arg)
{
    module_state *state = PyModule_GetState(module);
#define X(name) Py_VISIT(state->name##Type);
    STATE_TYPES(X)
#undef X
#define X(name) Py_VISIT(state->str_##name);
    STATE_STRINGS(X)
#undef X
#define X(module_name, name) Py_VISIT(state->name);
    STATE_IMPORTS(X)
#undef X
    int result = Streams_traverse(state, visit, arg);
    return result != 0 ? result : Proof_traverse(state, visit, arg);
}

static int
module_clear(PyObject *module)
{
    module_state *state = PyModule_GetState(module);
    Handle_free_lists_clear(state);
    Proof_clear(state);
    StreamMethods_clear(state);
    Streams_clear(state);
#define X(name) Py_CLEAR(state->name##Type);
    STATE_TYPES(X)
#undef X
#define X(name) Py_CLEAR(state->str_##name);
    STATE_STRINGS(X)
#undef X
#define X(module_name, name) Py_CLEAR(state->name);
    STATE_IMPORTS(X)
#undef X
    return 0;
}

static void
module_free(void *module)
{
    (void)module_clear(module);
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
    COMPAT_MULTIPLE_INTERPRETERS{0, NULL},
};

struct PyModuleDef ouroloop_module = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "ouroloop._core",
    .m_size = sizeof(module_state),
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC
PyInit__core(void)
{
    return PyModuleDef_Init(&ouroloop_module);
}

/* The methods of asyncio's StreamReader and StreamWriter, as they are called
   for streams of our loops.

   The functions stay what they are, in their classes, to whoever looks; only
   how they are called is replaced (PyFunction_SetVectorcall()).  A call whose
   result is awaited by the very next instruction, so that nobody else can hold
   it, gives a StreamCall; every other call gives asyncio's coroutine. */
#include "ouroloop.h"

/* How Python functions are called: the same in every interpreter. */
static vectorcallfunc call_in_python;

/* Which module's StreamCalls do the classes of this interpreter give?  A
   function that is called has no room for the answer, so each thread keeps it
   until an interpreter or a module ends. */
static _Atomic unsigned int generation;
static _Thread_local struct {
    int64_t interpreter;
    unsigned int generation;
    module_state *state;
} here = {.interpreter = -1};
static const char CLAIM[] = "ouroloop._core.streams";

static module_state *
state_here(void)
{
    PyInterpreterState *interpreter = PyInterpreterState_Get();
    int64_t id = PyInterpreterState_GetID(interpreter);

    if (here.interpreter != id || here.generation != generation) {
        PyObject *dict = PyInterpreterState_GetDict(interpreter);
        PyObject *claim =
            dict == NULL ? NULL : PyDict_GetItemString(dict, CLAIM);
        here.state = claim == NULL ? NULL : PyCapsule_GetPointer(claim, CLAIM);
        here.interpreter = id;
        here.generation = generation;
    }
    return here.state;
}

static int
claim_interpreter(module_state *state)
{
    PyObject *dict = PyInterpreterState_GetDict(PyInterpreterState_Get());

    if (dict == NULL || PyDict_GetItemString(dict, CLAIM) != NULL) {
        return 0;
    }
    PyObject *claim = PyCapsule_New(state, CLAIM, NULL);
    if (claim == NULL || PyDict_SetItemString(dict, CLAIM, claim) < 0) {
        Py_XDECREF(claim);
        return -1;
    }
    Py_DECREF(claim);
    generation++;
    state->streams.claimed = true;
    return 0;
}

static void
give_up_claim(module_state *state)
{
    if (state->streams.claimed) {
        PyObject *dict = PyInterpreterState_GetDict(PyInterpreterState_Get());
        if (dict != NULL && PyDict_DelItemString(dict, CLAIM) < 0) {
            PyErr_Clear();
        }
        state->streams.claimed = false;
        generation++;
    }
}

/* Is it a call that can be done here, up to the state of the stream? */
static bool
is_ordinary(enum stream_method kind, PyObject *const *args, Py_ssize_t nargs,
            Py_ssize_t *size)
{
    PyObject *argument = nargs > 1 ? args[1] : NULL;

    *size = 0;
    switch (kind) {
    case STREAM_READ:
    case STREAM_READEXACTLY:
        if (nargs != 2 || !PyLong_CheckExact(argument)) {
            return false;
        }
        *size = PyLong_AsSsize_t(argument);
        if (*size == -1 && PyErr_Occurred()) {
            PyErr_Clear();
        }
        return *size > 0;
    case STREAM_READUNTIL:
        return nargs == 1 ||
            (nargs == 2 && PyBytes_CheckExact(argument) &&
             PyBytes_GET_SIZE(argument) > 0);
    default:
        return nargs == 1;
    }
}

/* Does the stream belong to a loop of ours?  For a writer that is seen when it
   is awaited. */
static bool
is_ours(enum stream_method kind, PyObject *stream)
{
    PyObject *name, *loop = NULL;
    Py_ssize_t position = 0;

    if (kind == STREAM_DRAIN) {
        return true;
    }
    PyObject *dict = PyObject_GenericGetDict(stream, NULL);
    if (dict == NULL) {
        PyErr_Clear();
        return false;
    }
    /* The second attribute: see Streams_view(). */
    bool ours = PyDict_Next(dict, &position, &name, &loop) &&
        PyDict_Next(dict, &position, &name, &loop) && Loop_check(loop);
    Py_DECREF(dict);
    return ours;
}

static PyObject *
call_method(enum stream_method kind, PyObject *function, PyObject *const *args,
            size_t nargsf, PyObject *kwnames)
{
    Py_ssize_t nargs = PyVectorcall_NARGS(nargsf), size;
    module_state *state = state_here();

    if (state != NULL && state->open_loops != NULL && !state->streams.off &&
        kwnames == NULL && nargs > 0 &&
        Py_TYPE(args[0]) ==
            (kind == STREAM_DRAIN ? state->streams.writer.type
                                  : state->streams.reader.type) &&
        compat_is_awaited_now(state->streams.get_awaitable) &&
        PyFunction_GET_CODE(function) == state->streams.codes[kind] &&
        is_ordinary(kind, args, nargs, &size) && is_ours(kind, args[0])) {
        return StreamCall_new(state, kind, function, args[0],
                              nargs > 1 ? args[1] : NULL, size);
    }
    return call_in_python(function, args, nargsf, kwnames);
}

#define METHOD(name, kind)                                                    \
    static PyObject *name(PyObject *function, PyObject *const *args,          \
                          size_t nargsf, PyObject *kwnames)                   \
    {                                                                         \
        return call_method(kind, function, args, nargsf, kwnames);            \
    }
METHOD(call_read, STREAM_READ)
METHOD(call_readexactly, STREAM_READEXACTLY)
METHOD(call_readuntil, STREAM_READUNTIL)
METHOD(call_readline, STREAM_READLINE)
METHOD(call_drain, STREAM_DRAIN)
#undef METHOD

static const struct {
    const char *name;
    vectorcallfunc call;
} methods[] = {
    [STREAM_READ] = {"read", call_read},
    [STREAM_READEXACTLY] = {"readexactly", call_readexactly},
    [STREAM_READUNTIL] = {"readuntil", call_readuntil},
    [STREAM_READLINE] = {"readline", call_readline},
    [STREAM_DRAIN] = {"drain", call_drain},
};
static_assert(Py_ARRAY_LENGTH(methods) == STREAM_METHODS, "see state.h");

/* The instruction that follows a call whose result is awaited. */
static int
find_instruction(stream_facts *facts)
{
    long number = -1;
    PyObject *module = PyImport_ImportModule("opcode");
    PyObject *names =
        module == NULL ? NULL : PyObject_GetAttrString(module, "opmap");
    PyObject *value =
        names == NULL ? NULL : PyMapping_GetItemString(names, "GET_AWAITABLE");

    if (value != NULL) {
        number = PyLong_AsLong(value);
    }
    Py_XDECREF(module);
    Py_XDECREF(names);
    Py_XDECREF(value);
    facts->get_awaitable = (unsigned char)number;
    return number < 0 ? -1 : 0;
}

int
StreamMethods_setup(module_state *state)
{
    stream_facts *facts = &state->streams;

    if (!state->stock.fast_types || facts->off ||
        !COMPAT_FUNCTIONS_CAN_BE_CALLED_OTHERWISE ||
        !Streams_is_stock(&facts->reader) ||
        !Streams_is_stock(&facts->protocol) ||
        !Streams_is_stock(&facts->writer)) {
        return 0;
    }
    if (find_instruction(facts) < 0 || claim_interpreter(state) < 0) {
        return -1;
    }
    for (int kind = 0; facts->claimed && kind < STREAM_METHODS; kind++) {
        PyObject *type =
            kind == STREAM_DRAIN ? state->StreamWriter : state->StreamReader;
        PyObject *function = PyObject_GetAttrString(type, methods[kind].name);
        if (function == NULL) {
            return -1;
        }
        if (PyFunction_Check(function)) {
            vectorcallfunc call = ((PyFunctionObject *)function)->vectorcall;
            /* Not if somebody had this idea before. */
            if (call_in_python == NULL) {
                call_in_python = call;
            }
            facts->call_in_python = call_in_python;
            if (call == call_in_python) {
                facts->codes[kind] = Py_NewRef(PyFunction_GET_CODE(function));
                facts->functions[kind] = Py_NewRef(function);
                compat_set_vectorcall(function, methods[kind].call);
            }
        }
        Py_DECREF(function);
    }
    return 0;
}

void
StreamMethods_clear(module_state *state)
{
    stream_facts *facts = &state->streams;

    for (int kind = 0; kind < STREAM_METHODS; kind++) {
        PyObject *function = facts->functions[kind];
        if (function != NULL &&
            ((PyFunctionObject *)function)->vectorcall == methods[kind].call) {
            compat_set_vectorcall(function, call_in_python);
        }
        Py_CLEAR(facts->functions[kind]);
        Py_CLEAR(facts->codes[kind]);
    }
    Py_CLEAR(facts->stop);
    while (facts->free_calls.count > 0) {
        PyObject_GC_Del(facts->free_calls.objects[--facts->free_calls.count]);
    }
    give_up_claim(state);
}

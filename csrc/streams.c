/* asyncio's streams: what StreamReaderProtocol and StreamReader do with input,
   done here for objects of exactly these classes as the standard library has
   them.

   The state stays where Python code sees it, in the reader's __dict__.  As
   soon as anything is not as asyncio leaves it (a patched class, an attribute
   more, a value of another type) nothing is done here, and the caller goes the
   way of asyncio's own code. */
#include "ouroloop.h"

/* The classes. */

/* New list of the dicts of a class and its bases, copied. */
static PyObject *
copy_dicts(PyTypeObject *type)
{
    PyObject *copies = PyList_New(0);

    for (Py_ssize_t i = 0;
         copies != NULL && i < PyTuple_GET_SIZE(type->tp_mro); i++) {
        PyObject *base = PyTuple_GET_ITEM(type->tp_mro, i);
        if (base == (PyObject *)&PyBaseObject_Type) {
            continue;
        }
        PyObject *copy = PyDict_Copy(((PyTypeObject *)base)->tp_dict);
        if (copy == NULL || PyList_Append(copies, copy) < 0) {
            Py_CLEAR(copies);
        }
        Py_XDECREF(copy);
    }
    return copies;
}

/* Are the functions of the class asyncio's own, not another's who came first?
   Methods of one module share its globals. */
static bool
is_genuine(PyObject *dict, PyObject *globals)
{
    PyObject *name, *value;
    Py_ssize_t position = 0;

    while (PyDict_Next(dict, &position, &name, &value)) {
        if (PyFunction_Check(value) &&
            PyFunction_GET_GLOBALS(value) != globals) {
            return false;
        }
    }
    return true;
}

static bool
starts_with_underscores(PyObject *name)
{
    return PyUnicode_Check(name) && PyUnicode_GET_LENGTH(name) > 1 &&
        PyUnicode_READ_CHAR(name, 0) == '_' &&
        PyUnicode_READ_CHAR(name, 1) == '_';
}

/* Is everything in it that was there, and nothing new that instances see? */
static bool
is_same_dict(PyObject *now, PyObject *before)
{
    PyObject *name, *value;
    Py_ssize_t position = 0;

    while (PyDict_Next(before, &position, &name, &value)) {
        if (PyDict_GetItemWithError(now, name) != value &&
            !starts_with_underscores(name)) {
            return false;
        }
    }
    position = 0;
    while (PyDict_Next(now, &position, &name, &value)) {
        if (PyDict_GetItemWithError(before, name) == NULL &&
            !starts_with_underscores(name)) {
            return false;
        }
    }
    return true;
}

static bool
is_intact(stock_class *self)
{
    PyTypeObject *type = self->type;
    Py_ssize_t place = 0;

    if (self->dicts == NULL || type->tp_getattro != PyObject_GenericGetAttr ||
        type->tp_setattro != PyObject_GenericSetAttr) {
        return false;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(type->tp_mro); i++) {
        PyObject *base = PyTuple_GET_ITEM(type->tp_mro, i);
        if (base == (PyObject *)&PyBaseObject_Type) {
            continue;
        }
        if (place == PyList_GET_SIZE(self->dicts) ||
            !is_same_dict(((PyTypeObject *)base)->tp_dict,
                          PyList_GET_ITEM(self->dicts, place++))) {
            return false;
        }
    }
    return true;
}

bool
Streams_look_again(stock_class *self)
{
    PyObject *ignored = NULL;

    if (self->type == NULL) {
        return false;
    }
    /* A lookup gives the class a tag, which it keeps until it changes. */
    if (PyObject_GetOptionalAttr((PyObject *)self->type, self->any_name,
                                 &ignored) < 0) {
        PyErr_Clear();
    }
    Py_XDECREF(ignored);
    self->tag = compat_type_tag(self->type);
    self->intact = is_intact(self);
    return self->intact;
}

static int
know_class(stock_class *self, PyObject *type, PyObject *any_name)
{
    if (!PyType_Check(type)) {
        return 0;
    }
    PyObject *module = PyObject_GetAttrString(type, "__module__"),
             *streams = NULL;
    if (module != NULL) {
        streams = PyImport_Import(module);
        Py_DECREF(module);
    }
    if (streams == NULL) {
        return -1;
    }
    self->type = (PyTypeObject *)Py_NewRef(type);
    self->any_name = any_name;
    if (is_genuine(self->type->tp_dict, PyModule_GetDict(streams))) {
        self->dicts = copy_dicts(self->type);
    }
    Py_DECREF(streams);
    return PyErr_Occurred() ? -1 : 0;
}

int
Streams_setup(module_state *state)
{
    stream_facts *facts = &state->streams;
    const char *off = getenv("OUROLOOP_STOCK_STREAMS");

    facts->off = off != NULL && off[0] != '\0' && strcmp(off, "0") != 0;
    if (know_class(&facts->reader, state->StreamReader, state->str__buffer) <
            0 ||
        know_class(&facts->protocol, state->StreamReaderProtocol,
                   state->str__buffer) < 0 ||
        know_class(&facts->writer, state->StreamWriter, state->str__buffer) <
            0) {
        return -1;
    }
    return 0;
}

int
Streams_traverse(module_state *state, visitproc visit, void *arg)
{
    stock_class *classes[] = {&state->streams.reader, &state->streams.protocol,
                              &state->streams.writer};

    for (size_t i = 0; i < Py_ARRAY_LENGTH(classes); i++) {
        Py_VISIT(classes[i]->type);
        Py_VISIT(classes[i]->dicts);
    }
    for (int i = 0; i < STREAM_METHODS; i++) {
        Py_VISIT(state->streams.functions[i]);
        Py_VISIT(state->streams.codes[i]);
    }
    Py_VISIT(state->streams.stop);
    return 0;
}

void
Streams_clear(module_state *state)
{
    stock_class *classes[] = {&state->streams.reader, &state->streams.protocol,
                              &state->streams.writer};

    for (size_t i = 0; i < Py_ARRAY_LENGTH(classes); i++) {
        Py_CLEAR(classes[i]->type);
        Py_CLEAR(classes[i]->dicts);
    }
}

/* The reader. */

/* Into view->dict. */
static bool
find_in_dict(module_state *state, PyObject *reader, reader_view *view)
{
    PyObject *name, *dict = PyObject_GenericGetDict(reader, NULL);
    Py_ssize_t position = 0;

    if (dict == NULL) {
        return false;
    }
    view->dict = dict;
    /* What StreamReader.__init__() sets, in this order.  With one attribute
       more, which may stand in the place of a method, a reader is not plain.
     */
#define NEXT(field)                                                           \
    (PyDict_Next(dict, &position, &name, &view->field) &&                     \
     name == state->str__##field)
    return PyDict_CheckExact(dict) && PyDict_GET_SIZE(dict) == 8 &&
        NEXT(limit) && NEXT(loop) && NEXT(buffer) && NEXT(eof) &&
        NEXT(waiter) && NEXT(exception) && NEXT(transport) && NEXT(paused);
#undef NEXT
}

/* What feed() needs, one by one. */
static bool
find_attributes(module_state *state, PyObject *reader, reader_view *view)
{
#define GET(field)                                                            \
    (PyObject_GetOptionalAttr(reader, state->str__##field, &view->field) > 0)
    return GET(limit) && GET(buffer) && GET(eof) && GET(waiter) &&
        GET(paused) && !compat_is_shadowed(reader, state->str_feed_data) &&
        !compat_is_shadowed(reader, state->str__wakeup_waiter);
#undef GET
}

bool
Streams_view(module_state *state, PyObject *reader, reader_view *view)
{
    if (Py_TYPE(reader) != state->streams.reader.type ||
        !Streams_is_stock(&state->streams.reader)) {
        return false;
    }
    *view = (reader_view){NULL};
    bool found = COMPAT_LEAVE_DICTS_ALONE
        ? find_attributes(state, reader, view)
        : find_in_dict(state, reader, view);
    if (found && PyByteArray_CheckExact(view->buffer) &&
        view->paused == Py_False && PyLong_CheckExact(view->limit)) {
        int overflow;
        view->limit_bytes =
            PyLong_AsLongLongAndOverflow(view->limit, &overflow);
        if (overflow == 0 && view->limit_bytes > 0) {
            return true;
        }
    }
    PyErr_Clear();
    Streams_close_view(view);
    return false;
}

void
Streams_close_view(reader_view *view)
{
    if (COMPAT_LEAVE_DICTS_ALONE) {
        Py_CLEAR(view->limit);
        Py_CLEAR(view->buffer);
        Py_CLEAR(view->eof);
        Py_CLEAR(view->waiter);
        Py_CLEAR(view->paused);
    }
    Py_CLEAR(view->dict);
}

static int
forget_waiter(module_state *state, PyObject *reader, reader_view *view)
{
    return view->dict == NULL
        ? PyObject_SetAttr(reader, state->str__waiter, Py_None)
        : PyDict_SetItem(view->dict, state->str__waiter, Py_None);
}

/* protocol._stream_reader: new, NULL without an exception if that is not to be
   found out here. */
static PyObject *
reader_of(module_state *state, PyObject *protocol)
{
    PyObject *reader = NULL;

    if (Py_TYPE(protocol) != state->streams.protocol.type ||
        !Streams_is_stock(&state->streams.protocol)) {
        return NULL;
    }
    PyObject *dict = NULL, *reference = NULL;
    bool shadowed;
    if (COMPAT_LEAVE_DICTS_ALONE) {
        (void)PyObject_GetOptionalAttr(protocol, state->str__stream_reader_wr,
                                       &reference);
        shadowed = compat_is_shadowed(protocol, state->str_data_received);
    }
    else {
        dict = PyObject_GenericGetDict(protocol, NULL);
        shadowed = dict == NULL ||
            PyDict_GetItemWithError(dict, state->str_data_received) != NULL;
        if (!shadowed) {
            reference = Py_XNewRef(
                PyDict_GetItemWithError(dict, state->str__stream_reader_wr));
        }
    }
    if (!shadowed && reference != NULL && PyWeakref_CheckRefExact(reference)) {
        reader = compat_weakref_get(reference);
    }
    PyErr_Clear();
    Py_XDECREF(dict);
    Py_XDECREF(reference);
    return reader;
}

/* Give the bytes to a reader. */
static int
feed(module_state *state, PyObject *reader, const char *data, Py_ssize_t size)
{
    reader_view view;
    FutureObject *waiter = NULL;
    int result = 0;

    if (!Streams_view(state, reader, &view)) {
        return 0;
    }
    Py_ssize_t before = PyByteArray_GET_SIZE(view.buffer);
    /* Beyond twice the limit asyncio has more to do. */
    if (view.eof != Py_False || before > PY_SSIZE_T_MAX / 4 ||
        (before + size + 1) / 2 > view.limit_bytes) {
        goto done;
    }
    if (view.waiter != Py_None) {
        waiter = (FutureObject *)view.waiter;
        if (Py_TYPE(view.waiter) != state->FutureType ||
            waiter->loop == NULL || waiter->state == FUTURE_FINISHED) {
            waiter = NULL;
            goto done;
        }
        Py_INCREF(waiter);
    }
    /* A memoryview of it forbids that. */
    if (PyByteArray_Resize(view.buffer, before + size) < 0) {
        PyErr_Clear();
        goto done;
    }
    memcpy(PyByteArray_AS_STRING(view.buffer) + before, data, (size_t)size);
    result = 1;
    if (waiter != NULL &&
        (forget_waiter(state, reader, &view) < 0 ||
         (waiter->state == FUTURE_PENDING &&
          Future_finish(waiter, Py_None) < 0))) {
        result = -1;
    }
done:
    Py_XDECREF(waiter);
    Streams_close_view(&view);
    return result;
}

int
Streams_feed(module_state *state, PyObject *protocol, const char *data,
             Py_ssize_t size)
{
    if (state->streams.off) {
        return 0;
    }
    PyObject *reader = reader_of(state, protocol);
    if (reader == NULL) {
        return 0;
    }
    int result = feed(state, reader, data, size);
    Py_DECREF(reader);
    return result;
}

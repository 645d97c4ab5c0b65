/* asyncio's registers: current task, all tasks, who awaits whom.

   The current task is left in its register after its step (loop->current_task
   says so) because the next entry of the ready queue is mostly a step too:
   one write then does for a leave and an enter.  run.c takes it out before
   anything else runs.

   Until 3.13 asyncio.all_tasks() goes through a WeakSet; we replace the set
   inside it by a subclass that also yields the tasks of an intrusive list.
   Since 3.14 the interpreter has such a list for each thread. */
#include "ouroloop.h"

static inline void
node_remove(task_node *node)
{
    node->prev->next = node->next;
    node->next->prev = node->prev;
    node->next = node->prev = NULL;
}

static inline void
node_append(task_node *head, task_node *node)
{
    node->prev = head->prev;
    node->next = head;
    head->prev->next = node;
    head->prev = node;
}

/* Take a reference to asyncio's function; absent ones stay NULL. */
static int
import_function(PyObject *tasks, const char *name, PyObject **slot)
{
    *slot = PyObject_GetAttrString(tasks, name);
    if (*slot == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_AttributeError)) {
            return -1;
        }
        PyErr_Clear();
    }
    return 0;
}

static int
call_register(PyObject *function, PyObject *loop, PyObject *task)
{
    PyObject *args[] = {loop, task};
    PyObject *result = PyObject_Vectorcall(function, args, 2, NULL);

    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

int
Registry_enter_checked(module_state *state, PyObject *loop, PyObject *task)
{
    return call_register(state->stock.enter_task, loop, task);
}

int
Registry_leave_checked(module_state *state, PyObject *loop, PyObject *task)
{
    return call_register(state->stock.leave_task, loop, task);
}

PyObject *
Registry_swap(module_state *state, PyObject *loop, PyObject *task)
{
    PyObject *args[] = {loop, task};
    return PyObject_Vectorcall(state->stock.swap_current_task, args, 2, NULL);
}

#if COMPAT_TASKS_IN_THREAD

static inline PyObject **
thread_slot(size_t offset)
{
    return (PyObject **)((char *)PyThreadState_Get() + offset);
}

/* Put a task in the place of the one that ran last. */
static int
replace_current(LoopObject *self, PyObject *task)
{
    asyncio_facts *stock = &self->state->stock;

    if (stock->native_registers) {
        PyObject **slot = thread_slot(stock->running_task);
        if (*slot == self->current_task) {
            Py_XSETREF(*slot, Py_NewRef(task)); /* may run Python */
            return 0;
        }
    }
    PyObject *previous = Registry_swap(self->state, (PyObject *)self, task);
    Py_XDECREF(previous);
    return previous == NULL ? -1 : 0;
}

static int
enter_first(LoopObject *self, PyObject *task)
{
    asyncio_facts *stock = &self->state->stock;

    if (stock->native_registers) {
        PyObject **slot = thread_slot(stock->running_task);
        if (*slot == NULL &&
            *thread_slot(stock->running_loop) == (PyObject *)self) {
            *slot = Py_NewRef(task);
            return 0;
        }
    }
    return Registry_enter_checked(self->state, (PyObject *)self, task);
}

static int
leave_last(LoopObject *self, PyObject *task)
{
    asyncio_facts *stock = &self->state->stock;

    if (stock->native_registers) {
        PyObject **slot = thread_slot(stock->running_task);
        if (*slot == task) {
            Py_CLEAR(*slot); /* may run Python */
            return 0;
        }
    }
    return Registry_leave_checked(self->state, (PyObject *)self, task);
}

int
Registry_add(module_state *state, TaskObject *task)
{
    asyncio_facts *stock = &state->stock;

    if (stock->native_registers) {
        if (task->node.next == NULL) {
            node_append((task_node *)thread_slot(stock->task_list),
                        &task->node);
        }
        return 0;
    }
    PyObject *result =
        PyObject_CallOneArg(stock->register_task, (PyObject *)task);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

#else

/* Put a task in the place of the one that ran last. */
static int
replace_current(LoopObject *self, PyObject *task)
{
    asyncio_facts *stock = &self->state->stock;
    PyObject *loop = (PyObject *)self;

    if (stock->native_registers) {
        return _PyDict_SetItem_KnownHash(stock->current_tasks, loop, task,
                                         self->hash);
    }
    if (Registry_leave_checked(self->state, loop, self->current_task) < 0) {
        return -1;
    }
    return Registry_enter_checked(self->state, loop, task);
}

static int
enter_first(LoopObject *self, PyObject *task)
{
    if (self->hash == 0) {
        self->hash = PyObject_Hash((PyObject *)self);
        if (self->hash == -1) {
            self->hash = 0;
            return -1;
        }
    }
    return Registry_enter_checked(self->state, (PyObject *)self, task);
}

static int
leave_last(LoopObject *self, PyObject *task)
{
    return Registry_leave_checked(self->state, (PyObject *)self, task);
}

/* The set inside asyncio's WeakSet of tasks.  It lives as long as any task
   in its list can be found: the WeakSet and each copy of this module own it.
   A second copy of the module takes over the first one's, so neither the set
   nor its type belongs to a module. */
typedef struct {
    PySetObject set;
    task_node head; /* borrowed tasks; unused in a copy of the set */
} TaskSetObject;

static inline bool
TaskSet_is_used(TaskSetObject *self)
{
    return self->head.next != NULL;
}

static inline TaskObject *
task_of_node(task_node *node)
{
    return (TaskObject *)((char *)node - offsetof(TaskObject, node));
}

static Py_ssize_t
TaskSet_count(TaskSetObject *self)
{
    Py_ssize_t count = 0;

    if (TaskSet_is_used(self)) {
        task_node *head = &self->head;
        for (task_node *node = head->next; node != head; node = node->next) {
            count++;
        }
    }
    return count;
}

/* New list of the tasks, which it owns. */
static PyObject *
TaskSet_tasks(TaskSetObject *self)
{
    Py_ssize_t count = TaskSet_count(self), i = 0;
    PyObject *list = PyList_New(count); /* may collect garbage: tasks die */

    if (list == NULL || !TaskSet_is_used(self)) {
        return list;
    }
    task_node *head = &self->head;
    for (task_node *node = head->next; node != head && i < count;
         node = node->next) {
        PyList_SET_ITEM(list, i++, Py_NewRef((PyObject *)task_of_node(node)));
    }
    if (i < count && PyList_SetSlice(list, i, count, NULL) < 0) {
        Py_CLEAR(list);
    }
    return list;
}

/* WeakSet calls each item to get at the object, so tasks become weak
   references here. */
static PyObject *
TaskSet_iter(PyObject *op)
{
    PyObject *list = TaskSet_tasks((TaskSetObject *)op);
    PyObject *plain = NULL, *iterator = NULL;

    if (list == NULL) {
        return NULL;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list); i++) {
        PyObject *ref = PyWeakref_NewRef(PyList_GET_ITEM(list, i), NULL);
        if (ref == NULL || PyList_SetItem(list, i, ref) < 0) {
            goto done;
        }
    }
    plain = PySet_Type.tp_iter(op);
    if (plain == NULL) {
        goto done;
    }
    PyObject *item;
    while ((item = PyIter_Next(plain)) != NULL) {
        int result = PyList_Append(list, item);
        Py_DECREF(item);
        if (result < 0) {
            goto done;
        }
    }
    if (!PyErr_Occurred()) {
        iterator = PyObject_GetIter(list);
    }
done:
    Py_XDECREF(plain);
    Py_DECREF(list);
    return iterator;
}

static Py_ssize_t
TaskSet_length(PyObject *op)
{
    return PySet_Type.tp_as_sequence->sq_length(op) +
        TaskSet_count((TaskSetObject *)op);
}

/* The task of our list that a weak reference leads to, new; NULL without an
   exception: none. */
static TaskObject *
TaskSet_find(TaskSetObject *self, PyObject *ref)
{
    PyObject *target;

    if (!TaskSet_is_used(self) || !PyWeakref_CheckRef(ref)) {
        return NULL;
    }
    target = PyObject_CallNoArgs(ref);
    task_node *head = &self->head;
    for (task_node *node = head->next; node != head; node = node->next) {
        if ((PyObject *)task_of_node(node) == target) {
            return task_of_node(node);
        }
    }
    Py_XDECREF(target);
    return NULL;
}

static int
TaskSet_contains(PyObject *op, PyObject *ref)
{
    TaskObject *task = TaskSet_find((TaskSetObject *)op, ref);

    if (task != NULL) {
        Py_DECREF(task);
        return 1;
    }
    return PyErr_Occurred() ? -1
                            : PySet_Type.tp_as_sequence->sq_contains(op, ref);
}

static PyObject *
TaskSet_discard(PyObject *op, PyObject *ref)
{
    TaskObject *task = TaskSet_find((TaskSetObject *)op, ref);

    if (task != NULL) {
        Registry_remove(task);
        Py_DECREF(task);
    }
    else if (PyErr_Occurred() || PySet_Discard(op, ref) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static int
TaskSet_traverse(PyObject *op, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(op));
    return PySet_Type.tp_traverse(op, visit, arg);
}

static void
TaskSet_dealloc(PyObject *op)
{
    TaskSetObject *self = (TaskSetObject *)op;
    PyTypeObject *type = Py_TYPE(op);

    while (TaskSet_is_used(self) && self->head.next != &self->head) {
        node_remove(self->head.next);
    }
    PySet_Type.tp_dealloc(op);
    Py_DECREF(type);
}

static PyMethodDef TaskSet_methods[] = {
    {"discard", TaskSet_discard, METH_O, NULL},
    {NULL},
};

static PyType_Slot TaskSet_slots[] = {
    {Py_tp_iter, TaskSet_iter},
    {Py_tp_traverse, TaskSet_traverse},
    {Py_tp_dealloc, TaskSet_dealloc},
    {Py_tp_methods, TaskSet_methods},
    {Py_sq_length, TaskSet_length},
    {Py_sq_contains, TaskSet_contains},
    {0, NULL},
};

static PyType_Spec TaskSet_spec = {
    .name = "ouroloop._core.TaskSet",
    .basicsize = sizeof(TaskSetObject),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = TaskSet_slots,
};

/* New: the set to use in the place of `data`, with all that it holds. */
static PyObject *
TaskSet_replace(PyObject *data)
{
    TaskSetObject *self = NULL;
    PyObject *type, *bases = PyTuple_Pack(1, (PyObject *)&PySet_Type);

    if (Py_TYPE(data)->tp_iter == TaskSet_iter) {
        Py_XDECREF(bases);
        return Py_NewRef(data);
    }
    if (bases == NULL) {
        return NULL;
    }
    type = PyType_FromSpecWithBases(&TaskSet_spec, bases);
    Py_DECREF(bases);
    if (type != NULL) {
        self = (TaskSetObject *)PyObject_CallOneArg(type, data);
        Py_DECREF(type);
    }
    if (self != NULL) {
        self->head.next = self->head.prev = &self->head;
    }
    return (PyObject *)self;
}

int
Registry_add(module_state *state, TaskObject *task)
{
    TaskSetObject *set = (TaskSetObject *)state->stock.task_set;

    if (set == NULL) {
        PyObject *result =
            PyObject_CallOneArg(state->stock.register_task, (PyObject *)task);
        Py_XDECREF(result);
        return result == NULL ? -1 : 0;
    }
    if (task->node.next == NULL) {
        node_append(&set->head, &task->node);
    }
    return 0;
}

#endif

int
Registry_enter(LoopObject *self, PyObject *task)
{
    PyObject *previous = self->current_task;
    int result;

    if (previous == task) {
        return 0;
    }
    result = previous == NULL ? enter_first(self, task)
                              : replace_current(self, task);
    if (result < 0) {
        return -1;
    }
    self->current_task = Py_NewRef(task);
    Py_XDECREF(previous); /* may run Python: the last reference */
    return 0;
}

int
Registry_leave(LoopObject *self)
{
    PyObject *task = self->current_task;

    if (task == NULL) {
        return 0;
    }
    self->current_task = NULL;
    int result = leave_last(self, task);
    Py_DECREF(task); /* may run Python: the last reference */
    return result;
}

void
Registry_remove(TaskObject *task)
{
    if (task->node.next != NULL) {
        node_remove(&task->node);
    }
}

#if COMPAT_AWAITED_BY

int
Registry_add_awaiter(module_state *state, PyObject *op, PyObject *task)
{
    FutureObject *future = (FutureObject *)op;
    PyObject *set;

    if (!PyObject_TypeCheck(op, state->stock.FutureType)) {
        return 0;
    }
    if (future->awaited_by == NULL) {
        future->awaited_by = Py_NewRef(task);
        return 0;
    }
    if (future->awaited_by_is_set) {
        return PySet_Add(future->awaited_by, task);
    }
    set = PySet_New(NULL);
    if (set == NULL || PySet_Add(set, future->awaited_by) < 0 ||
        PySet_Add(set, task) < 0) {
        Py_XDECREF(set);
        return -1;
    }
    Py_SETREF(future->awaited_by, set);
    future->awaited_by_is_set = 1;
    return 0;
}

int
Registry_discard_awaiter(module_state *state, PyObject *op, PyObject *task)
{
    FutureObject *future = (FutureObject *)op;

    if (!PyObject_TypeCheck(op, state->stock.FutureType) ||
        future->awaited_by == NULL) {
        return 0;
    }
    if (future->awaited_by == task) {
        Py_CLEAR(future->awaited_by);
        return 0;
    }
    return future->awaited_by_is_set
        ? Py_MIN(PySet_Discard(future->awaited_by, task), 0)
        : 0;
}

#else

int
Registry_add_awaiter(module_state *Py_UNUSED(state),
                     PyObject *Py_UNUSED(future), PyObject *Py_UNUSED(task))
{
    return 0;
}

int
Registry_discard_awaiter(module_state *Py_UNUSED(state),
                         PyObject *Py_UNUSED(future),
                         PyObject *Py_UNUSED(task))
{
    return 0;
}

#endif

#if !COMPAT_TASKS_IN_THREAD

/* Put our set into asyncio's WeakSet of tasks. */
static int
take_over_all_tasks(module_state *state, PyObject *asyncio)
{
    PyObject *weak_set = NULL, *data = NULL;
    int result = -1;

    weak_set = PyObject_GetAttrString(asyncio, COMPAT_ALL_TASKS);
    data = weak_set == NULL ? NULL : PyObject_GetAttrString(weak_set, "data");
    if (data == NULL || !PyAnySet_Check(data)) {
        /* Not the WeakSet we know; asyncio's functions will do. */
        PyErr_Clear();
        state->stock.native_registers = false;
        result = 0;
        goto done;
    }
    state->stock.task_set = TaskSet_replace(data);
    if (state->stock.task_set == NULL) {
        goto done;
    }
    result = PyObject_SetAttrString(weak_set, "data", state->stock.task_set);
done:
    Py_XDECREF(weak_set);
    Py_XDECREF(data);
    return result;
}

#endif

int
Registry_setup(module_state *state)
{
    asyncio_facts *stock = &state->stock;
    int result = -1;
    PyObject *asyncio = PyImport_ImportModule("_asyncio");

    if (asyncio == NULL) {
        return -1;
    }
    if (import_function(asyncio, "_enter_task", &stock->enter_task) < 0 ||
        import_function(asyncio, "_leave_task", &stock->leave_task) < 0 ||
        import_function(asyncio, "_register_task", &stock->register_task) <
            0 ||
        import_function(asyncio, "_swap_current_task",
                        &stock->swap_current_task) < 0 ||
        import_function(asyncio, "_current_tasks", &stock->current_tasks) <
            0) {
        goto done;
    }
#if COMPAT_TASKS_IN_THREAD
    result = 0;
#else
    if (stock->current_tasks == NULL ||
        !PyDict_CheckExact(stock->current_tasks)) {
        stock->native_registers = false;
    }
    result = stock->native_registers ? take_over_all_tasks(state, asyncio) : 0;
#endif
done:
    Py_DECREF(asyncio);
    return result;
}

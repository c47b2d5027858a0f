/* Native code for the tests: each function is one way in which a wrapper function may behave. */
#include <orc_trio.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>

struct owed {
    orc_trio_session *session;
    orc_trio_buffer args;
    orc_trio_return ret;
    uint64_t call_id;
};

static struct owed kept;
static sem_t gate;
static int initialised;

__attribute__((constructor)) static void prepare(void) {
    sem_init(&gate, 0, 0);
    initialised = 1;
}

void echo(orc_trio_session *session, orc_trio_buffer args, orc_trio_return ret, uint64_t id) { ret(session, args, id); }

void fail(orc_trio_session *session, orc_trio_buffer args, orc_trio_return ret, uint64_t id) {
    orc_trio_buffer_free(args);
    ret(session, orc_trio_buffer_make_error("it did not work"), id);
}

/* A buffer that claims bytes and has none. */
void null_bytes(orc_trio_session *session, orc_trio_buffer args, orc_trio_return ret, uint64_t id) {
    orc_trio_buffer broken;
    orc_trio_buffer_free(args);
    broken.value.ptr = NULL;
    broken.size = 100;
    ret(session, broken, id);
}

/* A buffer that claims more bytes than there can be. */
void huge(orc_trio_session *session, orc_trio_buffer args, orc_trio_return ret, uint64_t id) {
    orc_trio_buffer broken = orc_trio_buffer_copy("0123456789", 10);
    orc_trio_buffer_free(args);
    broken.size = (size_t)1 << 60;
    ret(session, broken, id);
}

void twice(orc_trio_session *session, orc_trio_buffer args, orc_trio_return ret, uint64_t id) {
    orc_trio_buffer_free(args);
    ret(session, orc_trio_buffer_copy("first", 5), id);
    ret(session, orc_trio_buffer_copy("the second one", 14), id);
}

/* Keeps the promise for later: `settle` answers it with its own arguments, and so does `settle` again. */
void keep(orc_trio_session *session, orc_trio_buffer args, orc_trio_return ret, uint64_t id) {
    orc_trio_buffer_free(args);
    kept.session = session;
    kept.ret = ret;
    kept.call_id = id;
}

void settle(orc_trio_session *session, orc_trio_buffer args, orc_trio_return ret, uint64_t id) {
    kept.ret(kept.session, args, kept.call_id);
    ret(session, orc_trio_buffer_copy("done", 4), id);
}

/* Answers, then stays on its thread until `open_gate`. */
void answer_and_stay(orc_trio_session *session, orc_trio_buffer args, orc_trio_return ret, uint64_t id) {
    ret(session, args, id);
    sem_wait(&gate);
}

/* Stays on its thread until `open_gate`, then answers. */
void stay(orc_trio_session *session, orc_trio_buffer args, orc_trio_return ret, uint64_t id) {
    sem_wait(&gate);
    ret(session, args, id);
}

/* Stays on its thread until `open_gate`, then passes the call on to the controller. */
void stay_and_pass_on(orc_trio_session *session, orc_trio_buffer args, orc_trio_return ret, uint64_t id) {
    sem_wait(&gate);
    session->call_controller(session, session->find_tag(session, "upper"), args, ret, id);
}

void open_gate(orc_trio_session *session, orc_trio_buffer args, orc_trio_return ret, uint64_t id) {
    sem_post(&gate);
    ret(session, args, id);
}

static void *in_own_thread(void *pointer) {
    struct owed owed = *(struct owed *)pointer;
    orc_trio_buffer result;
    uint64_t tag = owed.session->find_tag(owed.session, "upper");
    free(pointer);
    owed.session->call_controller_sync(owed.session, tag, owed.args, &result);
    owed.ret(owed.session, result, owed.call_id);
    return NULL;
}

/* Hands the call to a thread of its own, which asks the controller ("upper") and answers with what that says. */
void own_thread(orc_trio_session *session, orc_trio_buffer args, orc_trio_return ret, uint64_t id) {
    struct owed *owed = (struct owed *)malloc(sizeof *owed);
    pthread_t thread;
    owed->session = session;
    owed->args = args;
    owed->ret = ret;
    owed->call_id = id;
    pthread_create(&thread, NULL, in_own_thread, owed);
    pthread_detach(thread);
}

/* Asks the controller and answers with what that says, error or not. */
void ask(orc_trio_session *session, orc_trio_buffer args, orc_trio_return ret, uint64_t id) {
    orc_trio_buffer result;
    session->call_controller_sync(session, session->find_tag(session, "upper"), args, &result);
    ret(session, result, id);
}

/* The same without waiting: the answer goes straight on. */
void pass_on(orc_trio_session *session, orc_trio_buffer args, orc_trio_return ret, uint64_t id) {
    session->call_controller(session, session->find_tag(session, "upper"), args, ret, id);
}

/* Calls a handler whose name nobody knows, without and with a place for the answer. */
void ask_nobody(orc_trio_session *session, orc_trio_buffer args, orc_trio_return ret, uint64_t id) {
    orc_trio_buffer result;
    session->call_controller_sync(session, session->find_tag(session, "nobody"), orc_trio_buffer_copy("x", 1), NULL);
    session->call_controller(session, session->find_tag(session, "nobody"), orc_trio_buffer_copy("x", 1), NULL, 0);
    session->call_controller_sync(session, session->find_tag(session, "nobody"), args, &result);
    ret(session, result, id);
}

extern char orc_trio_tag_upper;

/* Answers whether the tag by symbol is the tag by name, the session the one given, and the constructor has run. */
void same(orc_trio_session *session, orc_trio_buffer args, orc_trio_return ret, uint64_t id) {
    int good = (uint64_t)&orc_trio_tag_upper == session->find_tag(session, "upper") &&
               orc_trio_get_session() == session && initialised && session->abi_version == ORC_TRIO_ABI_VERSION &&
               session->struct_size == sizeof *session;
    orc_trio_buffer_free(args);
    ret(session, orc_trio_buffer_copy(good ? "yes" : "no", good ? 3 : 2), id);
}

static void unlisted(orc_trio_session *session, orc_trio_buffer args, orc_trio_return ret, uint64_t id) {
    orc_trio_buffer_free(args);
    ret(session, orc_trio_buffer_copy("unlisted", 8), id);
}

/* Answers with the address of a function that has no symbol. */
void where(orc_trio_session *session, orc_trio_buffer args, orc_trio_return ret, uint64_t id) {
    uint64_t address = (uint64_t)unlisted;
    orc_trio_buffer_free(args);
    ret(session, orc_trio_buffer_copy(&address, sizeof address), id);
}

static void noted(orc_trio_session *session, orc_trio_buffer result, uint64_t id) {
    (void)session;
    orc_trio_buffer_free(result);
    if (id == 77)
        sem_post(&gate);
}

/* Calls the controller without waiting, answers, and opens the gate when the controller has answered. */
void note(orc_trio_session *session, orc_trio_buffer args, orc_trio_return ret, uint64_t id) {
    session->call_controller(session, session->find_tag(session, "upper"), args, noted, 77);
    ret(session, orc_trio_buffer_copy("noted", 5), id);
}

int add_one(int x) { return x + 1; }

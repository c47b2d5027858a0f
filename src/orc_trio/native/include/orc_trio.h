/* orc_trio.h: what native code loaded into an orc_trio executor sees.
 *
 * Code is loaded as object code (from C or LLVM IR), and is reached in one of two ways:
 *
 *   int main(int argc, char **argv)       run as a program, in a thread of the executor
 *   orc_trio_wrapper_function             called by the controller: bytes in, bytes out
 *
 * A wrapper function is asynchronous. It returns nothing; it, or any thread it hands the work to, answers by
 * calling the given `ret` exactly once with the call_id it was given. A second answer, or one that
 * comes after the connection has ended, is dropped.
 *
 * Bytes travel in buffers, passed by value:
 *   size 1..8                  the bytes are in value.inl
 *   size 0, value.ptr == NULL  no bytes
 *   size > 8                   value.ptr is from malloc; whoever RECEIVES the buffer frees it
 *   size 0, value.ptr != NULL  not bytes but an out-of-band error: a C string from malloc, which the receiver frees
 *
 * All functions may be called from any thread, also from one that your own code has made. None throws.
 */
#ifndef ORC_TRIO_H
#define ORC_TRIO_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ORC_TRIO_ABI_VERSION 1

typedef struct orc_trio_buffer {
    union {
        char *ptr;
        char inl[8];
    } value;
    size_t size;
} orc_trio_buffer;

typedef struct orc_trio_session orc_trio_session;

/* How an answer comes back; `id` is the call_id, or the id given to call_controller. Takes over the buffer. */
typedef void (*orc_trio_return)(orc_trio_session *session, orc_trio_buffer result, uint64_t id);

/* What the controller calls. Takes over `args`. */
typedef void (*orc_trio_wrapper_function)(orc_trio_session *session, orc_trio_buffer args, orc_trio_return ret,
                                          uint64_t call_id);

struct orc_trio_session {
    uint32_t abi_version; /* ORC_TRIO_ABI_VERSION */
    uint32_t struct_size; /* in bytes; a later version only adds members at the end */

    /* Calls the handler behind `tag` in the controller; returns at once. `ret` is called exactly once, from some
     * thread, with the answer or an out-of-band error. Since it has the type of a wrapper function's own `ret`,
     * a call can be passed on: session->call_controller(session, tag, args, ret, call_id). Takes over `args`. */
    void (*call_controller)(orc_trio_session *session, uint64_t tag, orc_trio_buffer args, orc_trio_return ret,
                            uint64_t id);

    /* The same, but waits for the answer and stores it in *result, which is the caller's to free. */
    void (*call_controller_sync)(orc_trio_session *session, uint64_t tag, orc_trio_buffer args,
                                 orc_trio_buffer *result);

    /* The tag of the handler with this name, or 0: the tags given with the program, then the executor's own. */
    uint64_t (*find_tag)(orc_trio_session *session, const char *name);
};

/* The session of the executor that loaded this code: for main(), which is not handed one. */
extern orc_trio_session *orc_trio_get_session(void);

/* Frees what a buffer holds outside itself. Do so once with every buffer you receive and do not pass on. */
static inline void orc_trio_buffer_free(orc_trio_buffer buffer) {
    if (buffer.size > sizeof buffer.value.inl || (buffer.size == 0 && buffer.value.ptr != NULL))
        free(buffer.value.ptr);
}

/* Where the bytes are. The address may lie inside *buffer, so it is good for as long as that is. */
static inline const char *orc_trio_buffer_data(const orc_trio_buffer *buffer) {
    return buffer->size > sizeof buffer->value.inl ? buffer->value.ptr : buffer->value.inl;
}

/* The text of an out-of-band error, or NULL if the buffer holds bytes. */
static inline const char *orc_trio_buffer_error(const orc_trio_buffer *buffer) {
    return buffer->size == 0 ? buffer->value.ptr : NULL;
}

/* An out-of-band error with a copy of this text. */
static inline orc_trio_buffer orc_trio_buffer_make_error(const char *text) {
    orc_trio_buffer buffer;
    size_t length = strlen(text) + 1;
    buffer.size = 0;
    buffer.value.ptr = (char *)malloc(length);
    if (buffer.value.ptr == NULL)
        abort();
    memcpy(buffer.value.ptr, text, length);
    return buffer;
}

/* A buffer with a copy of these bytes. */
static inline orc_trio_buffer orc_trio_buffer_copy(const void *data, size_t size) {
    orc_trio_buffer buffer;
    char *target = buffer.value.inl;
    buffer.value.ptr = NULL;
    buffer.size = size;
    if (size > sizeof buffer.value.inl) {
        target = (char *)malloc(size);
        if (target == NULL)
            abort();
        buffer.value.ptr = target;
    }
    if (size != 0)
        memcpy(target, data, size);
    return buffer;
}

#ifdef __cplusplus
}
#endif

#endif

/* Native code that calls back: it asks the controller for its input, and sends it its log lines.
 *
 * Two ways in. `main` runs as a program and uses the blocking call; `greet` and `relay` are wrapper functions,
 * called by the controller with bytes. The controller serves two handler tags, by name: "input" (answers with a
 * line of text, empty at the end) and "log" (takes a line of text).
 */
#include <orc_trio.h>
#include <stdio.h>

static void log_line(orc_trio_session *session, const char *text, size_t size) {
    orc_trio_buffer answer;
    session->call_controller_sync(session, session->find_tag(session, "log"), orc_trio_buffer_copy(text, size), &answer);
    orc_trio_buffer_free(answer);
}

/* Reads lines from the controller until there is no more, and logs how long each is. Returns how many there were,
 * or 100 if the controller could not be asked. */
int main(int argc, char **argv) {
    orc_trio_session *session = orc_trio_get_session();
    uint64_t input = session->find_tag(session, "input");
    int lines = 0;
    (void)argc;
    for (;;) {
        char text[256];
        orc_trio_buffer line;
        session->call_controller_sync(session, input, orc_trio_buffer_copy(NULL, 0), &line);
        if (orc_trio_buffer_error(&line)) {
            fprintf(stderr, "%s: %s\n", argv[0], orc_trio_buffer_error(&line));
            orc_trio_buffer_free(line);
            return 100;
        }
        if (line.size == 0)
            break;
        lines++;
        int length = snprintf(text, sizeof text, "line %d has %zu bytes: %.*s", lines, line.size, (int)line.size,
                              orc_trio_buffer_data(&line));
        orc_trio_buffer_free(line);
        log_line(session, text, length < (int)sizeof text ? (size_t)length : sizeof text - 1);
    }
    printf("%d lines\n", lines);
    return lines;
}

/* A wrapper function that answers with "hello, " and its argument; an empty name is an error. */
void greet(orc_trio_session *session, orc_trio_buffer args, orc_trio_return ret, uint64_t call_id) {
    orc_trio_buffer result;
    if (args.size == 0) {
        result = orc_trio_buffer_make_error("greet: who?");
    } else {
        size_t size = 7 + args.size;
        char *text = (char *)malloc(size);
        memcpy(text, "hello, ", 7);
        memcpy(text + 7, orc_trio_buffer_data(&args), args.size);
        result = orc_trio_buffer_copy(text, size);
        free(text);
    }
    orc_trio_buffer_free(args);
    ret(session, result, call_id);
}

/* A wrapper function that passes its call on to the handler "input" of the controller, without waiting: the
 * answer goes straight to whoever called. */
void relay(orc_trio_session *session, orc_trio_buffer args, orc_trio_return ret, uint64_t call_id) {
    session->call_controller(session, session->find_tag(session, "input"), args, ret, call_id);
}

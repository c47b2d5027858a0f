/* Run as a main inside LLVM's executor: hands its argument to the controller, and gives back the first byte of what
   comes back. Linked to where it will be, with the addresses of the executor's own functions. */

typedef struct {
    union { char *pointer; char inlined[8]; } data;
    unsigned long size;
} Buffer;

extern Buffer dispatch(void *context, const void *tag, const char *data, unsigned long size);
extern void release(void *memory);
extern char context[], tag[];

int main(int argc, char **argv) {
    unsigned long length = 0;
    while (argv[1][length])
        length++;
    Buffer answer = dispatch(context, tag, argv[1], length);
    if (answer.size <= sizeof answer.data.inlined)
        return answer.size ? (unsigned char)answer.data.inlined[0] : -1;
    int first = (unsigned char)answer.data.pointer[answer.size - 1];
    release(answer.data.pointer);
    return first;
}

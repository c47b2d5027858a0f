// Arguments, output, exceptions; or, with the ORC runtime, static constructors and destructors and thread-local storage.
// (Not all at once: LLVM 19's own executor does not catch an exception with that runtime.)

#include <cstdio>
#include <stdexcept>
#include <string>
#include <thread>

#ifdef WITH_RUNTIME
struct Announced {
    Announced() { std::puts("constructed"); }
    ~Announced() { std::puts("destroyed"); }
} announced;
thread_local int counted = 40;
#else
static int counted = 40;
#endif

extern "C" int other(int);

int main(int argc, char **argv) {
    for (int number = 1; number < argc; number++)
        std::printf("argument %s\n", argv[number]);
#ifdef WITH_RUNTIME
    counted += other(0);
    std::thread([] { counted += 100; }).join();
#else
    try {
        throw std::runtime_error("thrown " + std::to_string(other(argc)));
    } catch (const std::exception &error) {
        std::printf("caught: %s\n", error.what());
    }
#endif
    return counted + argc;
}

// Exceptions, arguments, output; static constructors and destructors and thread-local storage with the ORC runtime.

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
    try {
        throw std::runtime_error("thrown " + std::to_string(other(argc)));
    } catch (const std::exception &error) {
        std::printf("caught: %s\n", error.what());
    }
#ifdef WITH_RUNTIME
    std::thread([] { counted += 100; }).join();
#endif
    return counted + argc;
}

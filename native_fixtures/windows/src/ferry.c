/*
 * ferry.exe MODE [STEPS]: crashes, and writes its own minidump from the filter for unhandled exceptions.
 *
 * Beside ferry.dmp it leaves ferry.txt: where the exception was, the return addresses that the functions on the stack
 * have noted, and, on x86_64, the frames that the system's own unwinder finds with the program's tables.
 */
#include "ferry.h"

static struct {
    struct exception_pointers *pointers;
    unsigned long thread;
    void *happened, *written;
    unsigned steps;
} crash;

static char text[1 << 20];
static unsigned text_length;

static void put(const char *s) {
    while (*s && text_length < sizeof text)
        text[text_length++] = *s++;
}

static void put_number(const char *name, word value) {
    char digits[] = "0123456789abcdef", number[2 * sizeof value + 2];
    unsigned i = sizeof number - 1;
    number[i] = 0;
    do {
        number[--i] = digits[value & 15];
        value >>= 4;
    } while (value);
    put(name);
    put(" ");
    put(number + i);
    put("\n");
}

static void *create(const char *name) {
    return CreateFileA(name, 0x40000000, 0, 0, 2, 0, 0);
}

#ifdef _WIN64
static unsigned char context[1232] __attribute__((aligned(16)));

/* Walk the crashed stack with the system's unwinder. Offsets are those of CONTEXT's Rsp and Rip. */
static void put_walk(const unsigned char *from) {
    word *sp = (word *)(context + 152), *pc = (word *)(context + 248);
    for (unsigned i = 0; i < sizeof context; i++)
        context[i] = from[i];
    for (unsigned frames = 0; frames < 2000; frames++) {
        put_number("walk", *pc);
        put_number("sp", *sp);
        word base = 0, frame, previous = *sp;
        void *data, *function = *pc ? RtlLookupFunctionEntry(*pc, &base, 0) : 0;
        if (function) {
            RtlVirtualUnwind(0, base, *pc, function, context, &data, &frame, 0);
        } else {
            *pc = *(word *)*sp;
            *sp += 8;
        }
        if (*pc == 0 || *sp <= previous)
            break;
    }
}
#endif

/* A thread of its own writes: the crashed one may have no stack left. */
static unsigned long API write_dump(void *unused) {
    WaitForSingleObject(crash.happened, FOREVER);
    struct exception_record *record = crash.pointers->record;
    put_number("thread", crash.thread);
    put_number("code", record->code);
    put_number("pc", (word)record->address);
    for (unsigned i = 0; i < record->parameters; i++)
        put_number("information", record->information[i]);
    put_number("ferry.exe", (word)GetModuleHandleA("ferry.exe"));
    put_number("winch.dll", (word)GetModuleHandleA("winch.dll"));
    for (unsigned i = 0; i < trail.length && i < TRAIL_SIZE; i++)
        put_number("return", (word)trail.address[i]);
#ifdef _WIN64
    put_walk(crash.pointers->context);
#endif
    unsigned long written;
    void *file = create("ferry.txt");
    WriteFile(file, text, text_length, &written, 0);
    CloseHandle(file);
    struct minidump_exception about = {crash.thread, crash.pointers, 0};
    file = create("ferry.dmp");
    int done = MiniDumpWriteDump(GetCurrentProcess(), GetCurrentProcessId(), file, 0, &about, 0, 0);
    CloseHandle(file);
    TerminateProcess(GetCurrentProcess(), done ? 99 : 98);
    return unused != 0;
}

static long API on_crash(struct exception_pointers *pointers) {
    crash.pointers = pointers;
    crash.thread = GetCurrentThreadId();
    SetEvent(crash.happened);
    WaitForSingleObject(crash.written, FOREVER);
    return 0;
}

#define SINGLE_STEP 0x80000004UL
#define TRAP_FLAG 0x100
#ifdef _WIN64
#define EFLAGS 68
#else
#define EFLAGS 192
#endif

/* Go on until enough instructions were executed. The trap flag is off in a handler. */
static long API on_step(struct exception_pointers *pointers) {
    if (pointers->record->code != SINGLE_STEP || crash.steps == 0)
        return 0;
    if (--crash.steps == 0)
        return 0;
    *(unsigned *)(pointers->context + EFLAGS) |= TRAP_FLAG;
    return -1;
}

void crash_in_thread(thread_start start, void *argument) {
    WaitForSingleObject(CreateThread(0, 0, start, argument, 0, 0), FOREVER);
}

static const char *next_word(const char *s) {
    while (*s && *s != ' ')
        s++;
    while (*s == ' ')
        s++;
    return s;
}

int NOINLINE main(const char *name) {
    NOTE();
    static char mode_name[32];
    for (unsigned i = 0; name[i] > ' ' && i + 1 < sizeof mode_name; i++)
        mode_name[i] = name[i];
    for (const char *s = next_word(name); *s >= '0' && *s <= '9'; s++)
        crash.steps = crash.steps * 10 + (*s - '0');
    mode run = find_mode(mode_name);
    if (!run)
        return 2;
    return run(5) + 10;
}

void start(void) {
    NOTE();
    crash.happened = CreateEventA(0, 1, 0, 0);
    crash.written = CreateEventA(0, 1, 0, 0);
    CreateThread(0, 0, write_dump, 0, 0, 0);
    SetUnhandledExceptionFilter(on_crash);
    AddVectoredExceptionHandler(1, on_step);
    ExitProcess(main(next_word(GetCommandLineA())));
}

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
    unsigned steps;
} crash;

#define TRAP_FLAG 0x100
/* Offsets in CONTEXT. */
#ifdef _WIN64
#define EFLAGS 68
#define STACK_POINTER 152
#define PROGRAM_COUNTER 248
#define PROBE_PUSHES 16
#else
#define EFLAGS 192
#define STACK_POINTER 196
#define PROBE_PUSHES 4
#endif

#define SINGLE_STEP 0x80000004UL
#define STACK_OVERFLOW 0xc00000fdUL

extern char probe_stack[] __asm__("__chkstk");
/* The compiler's routine for large frames. */

static char text[1 << 16];
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

/* Walk the crashed stack with the system's unwinder. */
static void put_walk(const unsigned char *from) {
    word *sp = (word *)(context + STACK_POINTER), *pc = (word *)(context + PROGRAM_COUNTER);
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

/* Of the system's modules, take the two that threads start in. The path's case is the system's. */
static int API choose_module(void *unused, const struct minidump_question *question, unsigned long *flags) {
    static const char *const wanted[] = {"ferry.exe", "winch.dll", "kernel32.dll", "ntdll.dll"};
    if (unused || question->kind != MODULE_QUESTION)
        return 1;
    const unsigned short *name = question->path;
    for (const unsigned short *s = name; *s; s++)
        if (*s == '\\' || *s == '/')
            name = s + 1;
    for (unsigned i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        const char *w = wanted[i];
        const unsigned short *s = name;
        while (*w && *w == (*s >= 'A' && *s <= 'Z' ? *s + 32 : *s))
            w++, s++;
        if (!*w && !*s)
            return 1;
    }
    *flags = 0;
    return 0;
}

static void write_dump(void) {
    struct exception_record *record = crash.pointers->record;
    char *sp = *(char **)(crash.pointers->context + STACK_POINTER);
    /* What could not note anything: a call to nowhere has pushed where to return to, the routine has also pushed more. */
    if (record->address == 0)
        trail.address[trail.length++] = *(void **)sp;
    else if ((word)record->address - (word)probe_stack < 64)
        trail.address[trail.length++] = *(void **)(sp + PROBE_PUSHES);
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
    struct minidump_callback callback = {choose_module, 0};
    int done = MiniDumpWriteDump(GetCurrentProcess(), GetCurrentProcessId(), file, 0, &about, 0, &callback);
    CloseHandle(file);
    TerminateProcess(GetCurrentProcess(), done ? 99 : 98);
}

static unsigned long API scribe(void *unused) {
    write_dump();
    return unused != 0;
}

/* The thread that crashed writes, as it should be in the dump with the exception's context; if it has stack left. */
static long API on_crash(struct exception_pointers *pointers) {
    crash.pointers = pointers;
    crash.thread = GetCurrentThreadId();
    if (pointers->record->code == STACK_OVERFLOW)
        WaitForSingleObject(CreateThread(0, 0, scribe, 0, 0, 0), FOREVER);
    write_dump();
    return 0;
}

/*
 * Go on until enough instructions were executed; the trap flag is off in a handler. An overflow has no time to lose: the
 * system takes more stack to come to the filter.
 */
static long API on_exception(struct exception_pointers *pointers) {
    if (pointers->record->code == STACK_OVERFLOW)
        return on_crash(pointers);
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
    SetUnhandledExceptionFilter(on_crash);
    AddVectoredExceptionHandler(1, on_exception);
    ExitProcess(main(next_word(GetCommandLineA())));
}

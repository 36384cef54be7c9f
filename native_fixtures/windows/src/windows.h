/* What the programs use of Windows, in their own words: no SDK is needed to build them. */
#ifndef FIXTURES_WINDOWS_H
#define FIXTURES_WINDOWS_H

#ifdef _WIN64
typedef unsigned long long word;
#else
typedef unsigned long word;
#endif

#define IMPORT __declspec(dllimport)
#define API __stdcall

struct exception_record {
    unsigned long code, flags;
    struct exception_record *next;
    void *address;
    unsigned long parameters;
    word information[15];
};

struct exception_pointers {
    struct exception_record *record;
    unsigned char *context;
};

#pragma pack(push, 4)
struct minidump_exception {
    unsigned long thread;
    struct exception_pointers *pointers;
    int client_pointers;
};

struct minidump_question {
    unsigned long process;
    void *handle;
    unsigned long kind;
    const unsigned short *path;
};

struct minidump_callback {
    int(__stdcall *routine)(void *, const struct minidump_question *, unsigned long *);
    void *argument;
};
#pragma pack(pop)

#define MODULE_QUESTION 0

typedef long(API *exception_handler)(struct exception_pointers *);
typedef unsigned long(API *thread_start)(void *);

#define FOREVER 0xffffffffUL

IMPORT void *API AddVectoredExceptionHandler(unsigned long first, exception_handler handler);
IMPORT int API CloseHandle(void *handle);
IMPORT void *API CreateFileA(const char *name, unsigned long access, unsigned long share, void *security,
                             unsigned long disposition, unsigned long flags, void *template_file);
IMPORT void *API CreateThread(void *security, word stack, thread_start start, void *argument, unsigned long flags,
                              unsigned long *id);
IMPORT void API ExitProcess(unsigned code);
IMPORT char *API GetCommandLineA(void);
IMPORT void *API GetCurrentProcess(void);
IMPORT unsigned long API GetCurrentProcessId(void);
IMPORT unsigned long API GetCurrentThreadId(void);
IMPORT void *API GetModuleHandleA(const char *name);
IMPORT exception_handler API SetUnhandledExceptionFilter(exception_handler filter);
IMPORT int API TerminateProcess(void *process, unsigned code);
IMPORT unsigned long API WaitForSingleObject(void *object, unsigned long milliseconds);
IMPORT int API WriteFile(void *file, const void *data, unsigned long size, unsigned long *written, void *overlapped);
IMPORT int API MiniDumpWriteDump(void *process, unsigned long id, void *file, int kind,
                                 struct minidump_exception *exception, void *user, struct minidump_callback *callback);
#ifdef _WIN64
IMPORT void *API RtlLookupFunctionEntry(word address, word *base, void *history);
IMPORT void *API RtlVirtualUnwind(unsigned long kind, word base, word address, void *function, void *context,
                                  void **data, word *frame, void *pointers);
#endif

#endif

# What a C library would have, and one thing that takes assembly.

        .text
        .globl  __chkstk
        .seh_proc __chkstk
__chkstk:                               # touches the pages of the next rax bytes of stack, in order
        subq    $16, %rsp
        .seh_stackalloc 16
        movq    %r10, (%rsp)
        movq    %r11, 8(%rsp)
        .seh_endprologue
        leaq    24(%rsp), %r11
        movq    %r11, %r10
        subq    %rax, %r10
        andq    $-4096, %r11
1:      cmpq    %r10, %r11
        jbe     2f
        subq    $4096, %r11
        testb   $0, (%r11)
        jmp     1b
2:      movq    (%rsp), %r10
        movq    8(%rsp), %r11
        addq    $16, %rsp
        retq
        .seh_endproc

        .globl  call_stepping
call_stepping:                          # (ecx: argument, rdx: target), notes on the target's behalf
        movq    (%rsp), %r8
        movq    __imp_trail(%rip), %rax
        movl    (%rax), %r9d
        movq    %r8, 8(%rax,%r9,8)
        incl    (%rax)
        pushfq
        orl     $0x100, (%rsp)
        popfq
        jmpq    *%rdx

        .data
        .globl  _fltused
_fltused:
        .long   1

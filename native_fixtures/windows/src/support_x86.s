# What a C library would have, and one thing that takes assembly.

        .text
        .globl  __chkstk
        .cv_fpo_proc __chkstk 0
__chkstk:                               # takes eax bytes of stack, touching their pages in order
        pushl   %ecx
        .cv_fpo_pushreg %ecx
        .cv_fpo_endprologue
        leal    8(%esp), %ecx
1:      cmpl    $4096, %eax
        jb      2f
        subl    $4096, %ecx
        orl     $0, (%ecx)
        subl    $4096, %eax
        jmp     1b
2:      subl    %eax, %ecx
        orl     $0, (%ecx)
        movl    %esp, %eax
        movl    %ecx, %esp
        movl    (%eax), %ecx
        pushl   4(%eax)
        retl
        .cv_fpo_endproc

        .globl  _call_stepping
_call_stepping:                         # (argument, target), notes on the target's behalf
        movl    __imp__trail, %eax
        movl    (%eax), %ecx
        movl    (%esp), %edx
        movl    %edx, 4(%eax,%ecx,4)
        incl    (%eax)
        movl    8(%esp), %edx
        pushfl
        orl     $0x100, (%esp)
        popfl
        jmpl    *%edx

        .data
        .globl  __fltused
__fltused:
        .long   1

        .section .debug$S,"dr"
        .p2align 2
        .long   4
        .cv_fpo_data __chkstk
        .cv_stringtable

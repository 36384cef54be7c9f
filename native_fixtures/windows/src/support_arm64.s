// What a C library would have, and a stand-in for the trap flag. Nothing runs this.

        .text
        .globl  __chkstk
        .p2align 2
__chkstk:                               // touches the pages of the next 16 * x15 bytes of stack, in order
        lsl     x16, x15, #4
        mov     x17, sp
1:      sub     x17, x17, #4096
        subs    x16, x16, #4096
        ldr     xzr, [x17]
        b.gt    1b
        ret

        .globl  call_stepping
        .p2align 2
call_stepping:                          // (argument, target)
        br      x1

        .data
        .globl  _fltused
_fltused:
        .word   1

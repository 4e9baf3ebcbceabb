    .section .rodata
    .globl law_prelude
law_prelude:
    .incbin "builtin.arch"
    .byte 0
    .section .note.GNU-stack, "", %progbits

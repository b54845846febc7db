#include "textflag.h"

// Sixteen hashes at a time, one in each part of a register of 512 bits. Z0 to Z7 are the words
// A to H of their states, Z16 to Z31 the last sixteen words of their message schedules; Z8 to
// Z15 are for the moment. AX points at the constants of the rounds to come.

// ROUND is one round with word w, whose constant is at k. Afterwards d is the new E, h the new A.
// VPTERNLOGD is a ^ b ^ c with 0x96, a ? b : c with 0xca, the majority of them with 0xe8.
#define ROUND(a, b, c, d, e, f, g, h, w, k) \
	VPADDD.BCST k(AX), h, h           \
	VPRORD      $6, e, Z8             \
	VPRORD      $11, e, Z9            \
	VPRORD      $25, e, Z10           \
	VPADDD      w, h, h               \
	VMOVDQA32   e, Z11                \
	VPTERNLOGD  $0x96, Z8, Z9, Z10    \
	VPTERNLOGD  $0xca, g, f, Z11      \
	VPRORD      $2, a, Z12            \
	VPADDD      Z10, h, h             \
	VPRORD      $13, a, Z13           \
	VPADDD      Z11, h, h             \
	VPRORD      $22, a, Z14           \
	VMOVDQA32   a, Z15                \
	VPADDD      h, d, d               \
	VPTERNLOGD  $0x96, Z12, Z13, Z14  \
	VPTERNLOGD  $0xe8, c, b, Z15      \
	VPADDD      Z14, h, h             \
	VPADDD      Z15, h, h

// WORD makes w the word sixteen after it, from those 1, 9 and 14 after it.
#define WORD(w, w1, w9, w14) \
	VPRORD     $7, w1, Z8           \
	VPRORD     $18, w1, Z9          \
	VPSRLD     $3, w1, Z10          \
	VPADDD     w9, w, w             \
	VPRORD     $17, w14, Z11        \
	VPRORD     $19, w14, Z12        \
	VPSRLD     $10, w14, Z13        \
	VPTERNLOGD $0x96, Z8, Z9, Z10   \
	VPTERNLOGD $0x96, Z11, Z12, Z13 \
	VPADDD     Z10, w, w            \
	VPADDD     Z13, w, w

// TURN takes what four times four lanes hold of four words apart, and has each register hold
// one word of sixteen lanes, the low byte first. Z15 says how to turn bytes around.
#define TURN(u0, u1, u2, u3) \
	VSHUFI32X4 $0x44, u1, u0, Z0 \
	VSHUFI32X4 $0xee, u1, u0, Z1 \
	VSHUFI32X4 $0x44, u3, u2, Z2 \
	VSHUFI32X4 $0xee, u3, u2, Z3 \
	VSHUFI32X4 $0x88, Z2, Z0, u0 \
	VSHUFI32X4 $0xdd, Z2, Z0, u1 \
	VSHUFI32X4 $0x88, Z3, Z1, u2 \
	VSHUFI32X4 $0xdd, Z3, Z1, u3 \
	VPSHUFB    Z15, u0, u0       \
	VPSHUFB    Z15, u1, u1       \
	VPSHUFB    Z15, u2, u2       \
	VPSHUFB    Z15, u3, u3

// func hashBlocks(s *states, data *byte, stride, blocks int)
TEXT ·hashBlocks(SB), NOSPLIT, $0-32
	MOVQ s+0(FP), DI
	MOVQ data+8(FP), SI
	MOVQ stride+16(FP), R8
	MOVQ blocks+24(FP), CX

block:
	// A block of each lane, then its words: the word k of all lanes goes to Z16+k.
	MOVQ SI, DX
	VMOVDQU32 (DX), Z16
	ADDQ      R8, DX
	VMOVDQU32 (DX), Z17
	ADDQ      R8, DX
	VMOVDQU32 (DX), Z18
	ADDQ      R8, DX
	VMOVDQU32 (DX), Z19
	ADDQ      R8, DX
	VMOVDQU32 (DX), Z20
	ADDQ      R8, DX
	VMOVDQU32 (DX), Z21
	ADDQ      R8, DX
	VMOVDQU32 (DX), Z22
	ADDQ      R8, DX
	VMOVDQU32 (DX), Z23
	ADDQ      R8, DX
	VMOVDQU32 (DX), Z24
	ADDQ      R8, DX
	VMOVDQU32 (DX), Z25
	ADDQ      R8, DX
	VMOVDQU32 (DX), Z26
	ADDQ      R8, DX
	VMOVDQU32 (DX), Z27
	ADDQ      R8, DX
	VMOVDQU32 (DX), Z28
	ADDQ      R8, DX
	VMOVDQU32 (DX), Z29
	ADDQ      R8, DX
	VMOVDQU32 (DX), Z30
	ADDQ      R8, DX
	VMOVDQU32 (DX), Z31
	VPUNPCKLDQ Z17, Z16, Z0
	VPUNPCKHDQ Z17, Z16, Z1
	VPUNPCKLDQ Z19, Z18, Z2
	VPUNPCKHDQ Z19, Z18, Z3
	VPUNPCKLDQ Z21, Z20, Z4
	VPUNPCKHDQ Z21, Z20, Z5
	VPUNPCKLDQ Z23, Z22, Z6
	VPUNPCKHDQ Z23, Z22, Z7
	VPUNPCKLDQ Z25, Z24, Z8
	VPUNPCKHDQ Z25, Z24, Z9
	VPUNPCKLDQ Z27, Z26, Z10
	VPUNPCKHDQ Z27, Z26, Z11
	VPUNPCKLDQ Z29, Z28, Z12
	VPUNPCKHDQ Z29, Z28, Z13
	VPUNPCKLDQ Z31, Z30, Z14
	VPUNPCKHDQ Z31, Z30, Z15
	VPUNPCKLQDQ Z2, Z0, Z16
	VPUNPCKHQDQ Z2, Z0, Z17
	VPUNPCKLQDQ Z3, Z1, Z18
	VPUNPCKHQDQ Z3, Z1, Z19
	VPUNPCKLQDQ Z6, Z4, Z20
	VPUNPCKHQDQ Z6, Z4, Z21
	VPUNPCKLQDQ Z7, Z5, Z22
	VPUNPCKHQDQ Z7, Z5, Z23
	VPUNPCKLQDQ Z10, Z8, Z24
	VPUNPCKHQDQ Z10, Z8, Z25
	VPUNPCKLQDQ Z11, Z9, Z26
	VPUNPCKHQDQ Z11, Z9, Z27
	VPUNPCKLQDQ Z14, Z12, Z28
	VPUNPCKHQDQ Z14, Z12, Z29
	VPUNPCKLQDQ Z15, Z13, Z30
	VPUNPCKHQDQ Z15, Z13, Z31
	VBROADCASTI32X4 ·swap(SB), Z15
	TURN(Z16, Z20, Z24, Z28)
	TURN(Z17, Z21, Z25, Z29)
	TURN(Z18, Z22, Z26, Z30)
	TURN(Z19, Z23, Z27, Z31)

	VMOVDQU32 0(DI), Z0
	VMOVDQU32 64(DI), Z1
	VMOVDQU32 128(DI), Z2
	VMOVDQU32 192(DI), Z3
	VMOVDQU32 256(DI), Z4
	VMOVDQU32 320(DI), Z5
	VMOVDQU32 384(DI), Z6
	VMOVDQU32 448(DI), Z7
	LEAQ ·constants(SB), AX
	MOVQ $3, BX

rounds:
	ROUND(Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z16, 0)
	WORD(Z16, Z17, Z25, Z30)
	ROUND(Z7, Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z17, 4)
	WORD(Z17, Z18, Z26, Z31)
	ROUND(Z6, Z7, Z0, Z1, Z2, Z3, Z4, Z5, Z18, 8)
	WORD(Z18, Z19, Z27, Z16)
	ROUND(Z5, Z6, Z7, Z0, Z1, Z2, Z3, Z4, Z19, 12)
	WORD(Z19, Z20, Z28, Z17)
	ROUND(Z4, Z5, Z6, Z7, Z0, Z1, Z2, Z3, Z20, 16)
	WORD(Z20, Z21, Z29, Z18)
	ROUND(Z3, Z4, Z5, Z6, Z7, Z0, Z1, Z2, Z21, 20)
	WORD(Z21, Z22, Z30, Z19)
	ROUND(Z2, Z3, Z4, Z5, Z6, Z7, Z0, Z1, Z22, 24)
	WORD(Z22, Z23, Z31, Z20)
	ROUND(Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z0, Z23, 28)
	WORD(Z23, Z24, Z16, Z21)
	ROUND(Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z24, 32)
	WORD(Z24, Z25, Z17, Z22)
	ROUND(Z7, Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z25, 36)
	WORD(Z25, Z26, Z18, Z23)
	ROUND(Z6, Z7, Z0, Z1, Z2, Z3, Z4, Z5, Z26, 40)
	WORD(Z26, Z27, Z19, Z24)
	ROUND(Z5, Z6, Z7, Z0, Z1, Z2, Z3, Z4, Z27, 44)
	WORD(Z27, Z28, Z20, Z25)
	ROUND(Z4, Z5, Z6, Z7, Z0, Z1, Z2, Z3, Z28, 48)
	WORD(Z28, Z29, Z21, Z26)
	ROUND(Z3, Z4, Z5, Z6, Z7, Z0, Z1, Z2, Z29, 52)
	WORD(Z29, Z30, Z22, Z27)
	ROUND(Z2, Z3, Z4, Z5, Z6, Z7, Z0, Z1, Z30, 56)
	WORD(Z30, Z31, Z23, Z28)
	ROUND(Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z0, Z31, 60)
	WORD(Z31, Z16, Z24, Z29)
	ADDQ $64, AX
	DECQ BX
	JNZ  rounds

	ROUND(Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z16, 0)
	ROUND(Z7, Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z17, 4)
	ROUND(Z6, Z7, Z0, Z1, Z2, Z3, Z4, Z5, Z18, 8)
	ROUND(Z5, Z6, Z7, Z0, Z1, Z2, Z3, Z4, Z19, 12)
	ROUND(Z4, Z5, Z6, Z7, Z0, Z1, Z2, Z3, Z20, 16)
	ROUND(Z3, Z4, Z5, Z6, Z7, Z0, Z1, Z2, Z21, 20)
	ROUND(Z2, Z3, Z4, Z5, Z6, Z7, Z0, Z1, Z22, 24)
	ROUND(Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z0, Z23, 28)
	ROUND(Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z24, 32)
	ROUND(Z7, Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z25, 36)
	ROUND(Z6, Z7, Z0, Z1, Z2, Z3, Z4, Z5, Z26, 40)
	ROUND(Z5, Z6, Z7, Z0, Z1, Z2, Z3, Z4, Z27, 44)
	ROUND(Z4, Z5, Z6, Z7, Z0, Z1, Z2, Z3, Z28, 48)
	ROUND(Z3, Z4, Z5, Z6, Z7, Z0, Z1, Z2, Z29, 52)
	ROUND(Z2, Z3, Z4, Z5, Z6, Z7, Z0, Z1, Z30, 56)
	ROUND(Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z0, Z31, 60)

	VPADDD    0(DI), Z0, Z0
	VMOVDQU32 Z0, 0(DI)
	VPADDD    64(DI), Z1, Z1
	VMOVDQU32 Z1, 64(DI)
	VPADDD    128(DI), Z2, Z2
	VMOVDQU32 Z2, 128(DI)
	VPADDD    192(DI), Z3, Z3
	VMOVDQU32 Z3, 192(DI)
	VPADDD    256(DI), Z4, Z4
	VMOVDQU32 Z4, 256(DI)
	VPADDD    320(DI), Z5, Z5
	VMOVDQU32 Z5, 320(DI)
	VPADDD    384(DI), Z6, Z6
	VMOVDQU32 Z6, 384(DI)
	VPADDD    448(DI), Z7, Z7
	VMOVDQU32 Z7, 448(DI)
	ADDQ $64, SI
	DECQ CX
	JNZ  block
	VZEROUPPER
	RET

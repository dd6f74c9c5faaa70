/* Hides instructions from a program, so that it runs as on an older processor: at full speed, with its kernels.

   cc -shared -fPIC older_processor.c -o older_processor.so
   OLDER_PROCESSOR=avx2 LD_PRELOAD=./older_processor.so python ...

   "avx2" hides AVX-512, VNNI and AMX; "avx512" hides VNNI and AMX. Linux on x86-64 can let the CPUID instruction fault
   (the flag cpuid_fault in /proc/cpuinfo); the fault is answered here. Where it cannot, the program ends with status 77. */

#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define ARCH_CPUID 0x1012
#define BIT(n) (1u << (n))

static int is_avx2;
static struct sigaction before;

static long allow_cpuid(int allowed) { return syscall(SYS_arch_prctl, ARCH_CPUID, allowed); }

static void answer(int number, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    const unsigned char *code = (const unsigned char *)registers[REG_RIP];
    if (info->si_code != SI_KERNEL || code[0] != 0x0f || code[1] != 0xa2) {
        sigaction(number, &before, 0); /* another fault: let it happen again, to whom it belongs */
        return;
    }
    unsigned leaf = (unsigned)registers[REG_RAX], part = (unsigned)registers[REG_RCX];
    unsigned a = leaf, b, c = part, d;
    allow_cpuid(1);
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    allow_cpuid(0);
    if (leaf == 7 && part == 0) {
        c &= ~BIT(11);                        /* AVX512_VNNI */
        d &= ~(BIT(22) | BIT(24) | BIT(25)); /* AMX */
        if (is_avx2) {                        /* all of AVX-512 */
            b &= ~(BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31));
            c &= ~(BIT(1) | BIT(6) | BIT(12) | BIT(14));
            d &= ~(BIT(2) | BIT(3) | BIT(8) | BIT(23));
        }
    }
    if (leaf == 7 && part == 1) {
        a &= ~(BIT(4) | BIT(5) | BIT(21)); /* AVX_VNNI, AVX512_BF16, AMX_FP16 */
        b = d = 0;
    }
    registers[REG_RAX] = a, registers[REG_RBX] = b, registers[REG_RCX] = c, registers[REG_RDX] = d;
    registers[REG_RIP] += 2;
}

__attribute__((constructor)) static void begin(void) {
    const char *kind = getenv("OLDER_PROCESSOR");
    if (!kind)
        return;
    is_avx2 = !strcmp(kind, "avx2");
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = answer;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    if (sigaction(SIGSEGV, &action, &before) || allow_cpuid(0))
        _exit(77);
}

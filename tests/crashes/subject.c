/* The program in the containers of these tests: it ends as it is told to, and in no other way.
 *
 *   subject exit CODE       at once
 *   subject stay CODE       on SIGTERM with CODE, on SIGUSR1 with CODE + 1, on SIGINT by a fault
 *   subject stubborn CODE   the same, but not on SIGTERM
 *
 * Each signal has a handler, so that it works for a pid 1 too; SIGTERM's comes last, and says to
 * whoever looks that all of them are there. SIGUSR2's does nothing.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static int code;
static int stubborn;

static void fault(void)
{
	struct rlimit none = { 0, 0 };

	setrlimit(RLIMIT_CORE, &none);
	for (volatile int *volatile nowhere = NULL;;)
		*nowhere = 0;
}

static void hear(int number)
{
	if (number == SIGTERM && !stubborn)
		_exit(code);
	if (number == SIGUSR1)
		_exit((code + 1) & 255);
	if (number == SIGINT)
		fault();
}

int main(int count, char **words)
{
	code = count > 2 ? atoi(words[2]) : 0;
	if (count < 2 || strcmp(words[1], "exit") == 0)
		return code;
	stubborn = strcmp(words[1], "stubborn") == 0;
	signal(SIGUSR2, hear);
	signal(SIGUSR1, hear);
	signal(SIGINT, hear);
	signal(SIGTERM, hear);
	for (;;)
		pause();
}

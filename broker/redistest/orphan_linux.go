package redistest

import "syscall"

// dieWithParent makes the kernel kill a server whose test binary ended
// without cleaning up, after a test timeout for example.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

//go:build unix

package host

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// setAttributes puts the connector into a process group of its own, so that
// what it starts can be ended with it and a terminal's interrupt does not reach
// it before the agent.
func setAttributes(cmd *exec.Cmd, u *User) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if u != nil {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: u.UID, Gid: u.GID, Groups: u.Groups}
	}
}

func killGroup(pid int) { _ = syscall.Kill(-pid, syscall.SIGKILL) }

func checkAddress(network, address, socketDir string) error {
	inside, err := filepath.Rel(socketDir, address)
	if network != "unix" || err != nil || strings.HasPrefix(inside, "..") || strings.ContainsRune(inside, filepath.Separator) {
		return fmt.Errorf("the handshake names %s address %q, not a socket in the directory it was given", network, address)
	}
	return nil
}

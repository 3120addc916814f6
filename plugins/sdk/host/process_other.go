//go:build !unix

package host

import (
	"fmt"
	"net"
	"os"
	"os/exec"
)

// setAttributes has nothing to set: separate OS users need a Unix system.
func setAttributes(*exec.Cmd, *User) {}

// killGroup ends the process itself; there are no process groups here.
func killGroup(pid int) {
	if p, err := os.FindProcess(pid); err == nil {
		_ = p.Kill()
	}
}

func checkAddress(network, address, _ string) error {
	host, _, err := net.SplitHostPort(address)
	if network != "tcp" || err != nil || !net.ParseIP(host).IsLoopback() {
		return fmt.Errorf("the handshake names %s address %q, not a loopback address", network, address)
	}
	return nil
}

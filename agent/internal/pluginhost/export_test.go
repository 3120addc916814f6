package pluginhost

// KillForTest ends the process as a crash would.
func (i *Instance) KillForTest() {
	i.mu.Lock()
	up := i.up
	i.mu.Unlock()
	up.client.Kill()
}

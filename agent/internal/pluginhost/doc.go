// Package pluginhost keeps one connector process running for every connector of
// agent.yaml: it starts it through plugins/sdk/host, configures it with its
// settings and secrets, starts it again with growing pauses when it ends or
// hangs, and knows by the work done whether it is well.
//
// agent.Run makes a Host from agent.yaml; executor, obligation and observation
// get Instances and see a directory, not a process. Release is the other duty:
// Instance.Released strips an object of whatever agent.yaml does not let out of
// the network, and everything that is sent passes it.
package pluginhost

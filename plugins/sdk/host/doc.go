// Package host is the agent's side of a connector: Launch starts the process
// and returns a Client that speaks connector/v1 to it. The agent's plugin host
// hands over a command and settings, and gets objects, results and problems.
//
// Nothing that a connector does may harm its host: the executable is hashed and
// the hashed handle executed, the environment is empty, standard output is
// drained, messages are bounded, counts and ids are checked again here, and a
// process that does not end is killed with everything it started. Restarting
// with backoff is the agent's business; Exited tells it when.
package host

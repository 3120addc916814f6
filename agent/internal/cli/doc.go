// Package cli is reeve-agent's command line: flags, words on the terminal, JSON
// for scripts, exit codes. It decides nothing; Program, which agent.Run
// implements, does the work and hands back results that know how to print
// themselves.
//
// Exit codes: 0 done; 1 failed; 2 the command line or agent.yaml is wrong;
// 3 refused (by the control plane, a guardrail or a rule of the agent);
// 4 the control plane, a directory or the running agent cannot be reached;
// 5 it was done, but what it shows needs attention.
package cli

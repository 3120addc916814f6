package cli

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/reevehq/reeve/controlplane/internal/policy"
	"github.com/reevehq/reeve/pki/jointoken"
	"github.com/reevehq/reeve/pki/keys"
	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
)

// completionPatience is how long a shell waits for names to complete.
const completionPatience = 2 * time.Second

func (a *app) agent() *cobra.Command {
	return noun("agent", "Agents in clients' networks", a.agentInvite(), a.agentList(), a.agentRevoke())
}

func (a *app) agentInvite() *cobra.Command {
	var valid, file string
	c := &cobra.Command{
		Use: "invite TENANT AGENT", Short: "Make a join token for an agent, into a file", Args: takes,
		Long: "Makes a join token: a secret that lets one agent join, once. It is written to a file\n" +
			"that only you may read, TENANT-AGENT.token unless --token-file names another, and\n" +
			"never printed, with -o json neither. Hand the file to the client by one way and the\n" +
			"root fingerprint by another.",
		ValidArgsFunction: a.completeTenants,
		RunE: a.run(func(ctx context.Context, s services, args []string) error {
			req := &operatorv1.InviteAgentRequest{Tenant: args[0], Agent: args[1]}
			if valid != "" {
				d, err := policy.ParseDuration(valid)
				if err != nil {
					return usagef("--for %s: %v", valid, err)
				}
				req.ValidFor = durationpb.New(d)
			}
			if file == "" {
				// A name with a separator in it is the server's to refuse, not a path.
				file = strings.ReplaceAll(args[0]+"-"+args[1], string(filepath.Separator), "_") + ".token"
			}
			if err := mayHoldToken(file); err != nil {
				return err
			}
			r, err := s.agents.InviteAgent(ctx, req)
			if err != nil {
				return err
			}
			if err := keys.WriteFile(file, []byte(r.GetToken()+"\n"), 0o600); err != nil {
				return badFile(file, err, "the token is lost, and nobody can use it; invite again with a --token-file that can be written")
			}
			shown := proto.CloneOf(r)
			shown.Token = ""
			return a.show(shown, func(p *printer) { p.invitation(shown, args[1], file) })
		}),
	}
	c.Flags().StringVar(&valid, "for", "", "how long the token is valid, at most 1h (default 1h)")
	c.Flags().StringVar(&file, "token-file", "", "file for the token (default TENANT-AGENT.token)")
	return c
}

// mayHoldToken refuses, before there is a token to lose, a place that cannot be
// written or holds something else than an earlier token.
func mayHoldToken(file string) error {
	old, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return badFile(file, err, "name another file with --token-file")
	default:
		if _, err := jointoken.Parse(strings.TrimSpace(string(old))); err != nil {
			return local(ExitConflict, "EXISTS", file, "", "the file exists and holds no join token", "remove it, or name another with --token-file")
		}
	}
	probe, err := os.CreateTemp(filepath.Dir(file), ".reeve-*")
	if err != nil {
		return badFile(filepath.Dir(file), err, "name a file in a folder that you may write with --token-file")
	}
	_ = probe.Close()
	return os.Remove(probe.Name())
}

func (p *printer) invitation(r *operatorv1.InviteAgentResponse, agent, file string) {
	p.facts("", "token", file+" (a secret: hand it over by a safe way)", "valid until", p.time(r.GetExpires()), "root", r.GetRootSha256()+" (tell it by another way)")
	p.line("")
	p.line("In the client's agent.yaml:")
	p.facts("  ", "control_plane:", r.GetControlPlane(), "trust_domain:", r.GetTrustDomain(), "root_sha256:", r.GetRootSha256())
	p.line("")
	p.line("On the client's machine:")
	p.line("  reeve-agent join --config agent.yaml --token-file %s --name %s --control-plane %s --root-sha256 %s",
		shellWord(filepath.Base(file)), shellWord(agent), shellWord(r.GetControlPlane()), shellWord(r.GetRootSha256()))
	p.line("  reeve-agent run --config agent.yaml")
}

// shellWord quotes what a POSIX shell would not take as one word.
func shellWord(s string) string {
	special := func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:@%+=,", r))
	}
	if s != "" && !strings.ContainsFunc(s, special) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

func (a *app) agentList() *cobra.Command {
	return &cobra.Command{
		Use: "list TENANT", Short: "List a tenant's agents", Args: takes, ValidArgsFunction: a.completeTenants,
		RunE: a.run(func(ctx context.Context, s services, args []string) error {
			r, err := pages(ctx, a, s.agents.ListAgents, &operatorv1.ListAgentsRequest{Tenant: args[0]})
			if err != nil {
				return err
			}
			return a.show(r, func(p *printer) {
				p.agents(r.GetAgents())
				p.none(len(r.GetAgents()), "no agents; invite one with `reeve agent invite "+args[0]+" AGENT`")
			})
		}),
	}
}

func (p *printer) agents(list []*operatorv1.Agent) {
	var rows [][]string
	for _, g := range list {
		state := g.GetState()
		if g.GetPaused() {
			state += ", paused"
		}
		rows = append(rows, []string{g.GetName(), state, yesNo(g.GetConnected()), p.time(g.GetLastSeen()), g.GetVersion(), number(g.GetEpoch())})
	}
	p.table("", []string{"AGENT", "STATE", "CONNECTED", "LAST SEEN", "VERSION", "EPOCH"}, rows)
}

func (a *app) agentRevoke() *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use: "revoke TENANT AGENT", Short: "End an agent's identity and cut its connections", Args: takes, ValidArgsFunction: a.completeTenants,
		RunE: a.run(func(ctx context.Context, s services, args []string) error {
			r, err := s.agents.RevokeAgent(ctx, &operatorv1.RevokeAgentRequest{Tenant: args[0], Agent: args[1], Reason: reason})
			if err != nil {
				return err
			}
			return a.show(r, func(p *printer) {
				p.agents([]*operatorv1.Agent{r.GetAgent()})
				p.line("")
				p.line("Its identity has ended. The accounts it bound to directories with are the client's to change.")
			})
		}),
	}
	c.Flags().StringVar(&reason, "reason", "", "why, for the record")
	return c
}

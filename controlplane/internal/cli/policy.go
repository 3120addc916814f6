package cli

import (
	"context"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/reevehq/reeve/controlplane/internal/policy"
	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
)

func (a *app) policy() *cobra.Command {
	return noun("policy", "Policy bundles", a.policyTest(), a.policyApply(), a.policyBind(), a.policyList())
}

// disk opens files by the names that were typed, so that positions in problems
// are paths that an editor can follow.
type disk struct{}

// Open implements fs.FS.
func (disk) Open(name string) (fs.File, error) { return os.Open(filepath.FromSlash(name)) }

func readBundle(name string) ([]policy.File, error) {
	files, err := policy.ReadFiles(disk{}, path.Clean(filepath.ToSlash(name)))
	var file *fs.PathError
	if errors.As(err, &file) {
		return nil, badFile(name, err, "name a policy file or a folder that holds one")
	}
	return files, err
}

// tested is the result of `policy test` as JSON.
type tested struct {
	Bundle  string `json:"bundle"`
	Version string `json:"version"`
	// Digest is that of the bundle's files, in hexadecimal.
	Digest string       `json:"digest"`
	Tests  []testedTest `json:"tests"`
	Failed int          `json:"failed"`
}

type testedTest struct {
	Name     string   `json:"name"`
	At       string   `json:"at"`
	Passed   bool     `json:"passed"`
	Failures []string `json:"failures"`
}

func (a *app) policyTest() *cobra.Command {
	return &cobra.Command{
		Use: "test PATH", Short: "Check a bundle and run its tests, offline", Args: takes,
		Long: "Reads a policy file, or the .yaml files of a folder, type-checks every rule and runs\n" +
			"the bundle's own tests. It needs no control plane.",
		RunE: func(_ *cobra.Command, args []string) error {
			r, err := testBundle(args[0])
			if err != nil {
				return badBundle(args[0], err)
			}
			if err := a.showData(r, func(p *printer) { p.tested(r) }); err != nil {
				return err
			}
			if r.Failed > 0 {
				return outcome(ExitUnverified)
			}
			return nil
		},
	}
}

func testBundle(name string) (tested, error) {
	files, err := readBundle(name)
	if err != nil {
		return tested{}, err
	}
	bundle, err := policy.Parse(files)
	if err != nil {
		return tested{}, err
	}
	if err := policy.Check(bundle); err != nil {
		return tested{}, err
	}
	results, err := policy.RunTests(bundle)
	if err != nil {
		return tested{}, err
	}
	r := tested{Bundle: bundle.Name, Version: bundle.Version, Digest: hex.EncodeToString(bundle.Digest()), Tests: []testedTest{}}
	for _, t := range results {
		r.Tests = append(r.Tests, testedTest{Name: t.Name, At: t.At.String(), Passed: t.Passed(), Failures: t.Failures})
		if !t.Passed() {
			r.Failed++
		}
	}
	return r, nil
}

// badBundle states everything that is wrong with a bundle as one problem.
func badBundle(name string, err error) error {
	var l localError
	if errors.As(err, &l) {
		return l
	}
	exit := ExitFailed
	if errors.Is(err, policy.ErrBundle) || errors.Is(err, policy.ErrParameters) || errors.Is(err, policy.ErrCost) || errors.Is(err, policy.ErrEvaluation) {
		exit = ExitUnverified
	}
	return local(exit, "POLICY", name, "", err.Error(), "correct the bundle and test it again")
}

func (p *printer) tested(r tested) {
	for _, t := range r.Tests {
		if t.Passed {
			p.line("%s  %s", p.good("ok  "), t.Name)
			continue
		}
		p.line("%s  %s (%s)", p.bad("FAIL"), t.Name, t.At)
		for _, f := range t.Failures {
			for _, l := range strings.Split(f, "\n") {
				p.line("        %s", l)
			}
		}
	}
	verdict := p.good("all passed")
	switch {
	case len(r.Tests) == 0:
		verdict = p.warn("it has none")
	case r.Failed > 0:
		verdict = p.bad(number(r.Failed) + " failed")
	}
	p.line("%s %s: the bundle is valid; %s, %s", p.strong(r.Bundle), r.Version, count(len(r.Tests), "test", "tests"), verdict)
}

func (a *app) policyApply() *cobra.Command {
	return &cobra.Command{
		Use: "apply PATH", Short: "Store a bundle's version after compiling and testing it", Args: takes,
		RunE: a.run(func(ctx context.Context, s services, args []string) error {
			files, err := readBundle(args[0])
			if err != nil {
				return badBundle(args[0], err)
			}
			req := new(operatorv1.ApplyPolicyRequest)
			for _, f := range files {
				// Where the folder lies on this machine is nobody else's business.
				req.Files = append(req.Files, &operatorv1.PolicyFile{Name: path.Base(f.Path), Content: f.Data})
			}
			r, err := s.policies.ApplyPolicy(ctx, req)
			if err != nil {
				return err
			}
			return a.show(r, func(p *printer) {
				p.line("%s %s is stored; %s passed", p.strong(r.GetPolicy().GetName()), r.GetPolicy().GetVersion(), count(r.GetTests(), "test", "tests"))
				p.facts("  ", "digest", hex.EncodeToString(r.GetPolicy().GetDigest()))
				p.line("")
				p.line("Next: reeve policy bind TENANT %s [-p NAME=VALUE …]", r.GetPolicy().GetName())
			})
		}),
	}
}

func (a *app) policyBind() *cobra.Command {
	var version string
	var parameters []string
	c := &cobra.Command{
		Use: "bind TENANT POLICY", Short: "Give a tenant a bundle and its parameters", Args: takes,
		Example:           "  reeve policy bind fabrikam baseline -p site=oslo",
		ValidArgsFunction: a.completeTenants,
		RunE: a.run(func(ctx context.Context, s services, args []string) error {
			req := &operatorv1.BindPolicyRequest{Tenant: args[0], Policy: args[1], Version: version}
			given := map[string]bool{}
			for _, p := range parameters {
				name, value, ok := strings.Cut(p, "=")
				if !ok || name == "" {
					return usageError{said: "-p " + p + " is no NAME=VALUE", remedy: "write it as -p site=oslo"}
				}
				if given[name] {
					return usagef("-p %s is given twice", name)
				}
				given[name] = true
				req.Parameters = append(req.Parameters, &operatorv1.Parameter{Name: name, Value: value})
			}
			r, err := s.policies.BindPolicy(ctx, req)
			if err != nil {
				return err
			}
			return a.show(r, func(p *printer) {
				p.line("%s has %s %s", args[0], p.strong(r.GetPolicy().GetName()), r.GetPolicy().GetVersion())
				p.line("")
				p.line("Next: reeve plan make %s", args[0])
			})
		}),
	}
	c.Flags().StringVar(&version, "version", "", "version of the bundle (default: the newest)")
	c.Flags().StringArrayVarP(&parameters, "parameter", "p", nil, "a parameter as NAME=VALUE; may be given several times")
	return c
}

func (a *app) policyList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List bundles, their versions and who has them", Args: takes,
		RunE: a.run(func(ctx context.Context, s services, _ []string) error {
			r, err := pages(ctx, a, s.policies.ListPolicies, &operatorv1.ListPoliciesRequest{})
			if err != nil {
				return err
			}
			return a.show(r, func(p *printer) {
				var rows [][]string
				for _, v := range r.GetPolicies() {
					rows = append(rows, []string{v.GetName(), v.GetVersion(), p.time(v.GetApplied()), short(v.GetDigest()), strings.Join(v.GetTenants(), ", ")})
				}
				p.table("", []string{"POLICY", "VERSION", "APPLIED", "DIGEST", "TENANTS"}, rows)
				p.none(len(rows), "no policies; store one with `reeve policy apply PATH`")
			})
		}),
	}
}

// short prints the first digits of a digest, for lists.
func short(digest []byte) string {
	text := hex.EncodeToString(digest)
	return text[:min(len(text), 12)]
}

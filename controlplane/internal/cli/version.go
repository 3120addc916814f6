package cli

import (
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// Version of the binary, set at link time; without one the module's is shown.
var Version string

// built is the result of `version` as JSON.
type built struct {
	Version  string `json:"version"`
	Revision string `json:"revision"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func (a *app) version() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Show the version", Args: takes,
		RunE: func(*cobra.Command, []string) error {
			v := built{Version: Version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
			if info, ok := debug.ReadBuildInfo(); ok {
				if v.Version = Version; Version == "" {
					v.Version = info.Main.Version
				}
				for _, s := range info.Settings {
					if s.Key == "vcs.revision" {
						v.Revision = s.Value
					}
				}
			}
			return a.showData(v, func(p *printer) {
				p.line("reeve %s", v.Version)
				p.facts("  ", "revision", v.Revision, "go", v.Go, "platform", v.Platform)
			})
		},
	}
}

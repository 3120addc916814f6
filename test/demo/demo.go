package demo

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

// Run runs the demo and returns the exit code.
func Run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("reeve-demo", flag.ContinueOnError)
	flags.SetOutput(stderr)
	bin := flags.String("bin", "bin", "folder of the binaries")
	dir := flags.String("dir", "demo", "folder that the demo makes anew and leaves behind")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *bin, *dir, stdout); err != nil {
		fmt.Fprintln(stderr, "\nreeve-demo:", err)
		return 1
	}
	return 0
}

func run(ctx context.Context, bin, dir string, out io.Writer) error {
	var err error
	if bin, err = filepath.Abs(bin); err != nil {
		return err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	if err := clear(dir); err != nil {
		return err
	}
	s := &shell{ctx: ctx, bin: bin, dir: dir, out: out, env: []string{"REEVE_SERVER=unix://" + filepath.Join(dir, "noc", "operator.sock"), "NO_COLOR=1"}}
	defer s.stopAll()
	d := &story{shell: s}
	defer d.stopDirectory()
	for _, chapter := range []func() error{
		d.noc, d.client, d.adopt, d.joinerMoverLeaver, d.technician, d.refused, d.explain, d.offboard, d.proof,
	} {
		if err := chapter(); err != nil {
			return err
		}
	}
	return nil
}

// marker says that a folder is the demo's to remove.
const marker = ".reeve-demo"

func clear(dir string) error {
	entries, err := os.ReadDir(dir)
	if err == nil && len(entries) > 0 {
		if _, err := os.Stat(filepath.Join(dir, marker)); err != nil {
			return fmt.Errorf("%s is not empty and was not made by the demo; name another folder with -dir", dir)
		}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, marker), nil, 0o644)
}

package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/fairlead/fairlead/internal/kek"
	"github.com/fairlead/fairlead/internal/store"
)

const kekHelp = `A key-encryption key is kept in one of these:

  file:PATH        32 bytes in hex or base64; --kek-file PATH is the same
  passphrase:PATH  the first line of a file; passphrase:- asks on the terminal,
                   passphrase: reads FAIRLEAD_KEK_PASSPHRASE
  aws-kms:KEY      id, ARN or alias/NAME of a symmetric key of AWS KMS
  pkcs11:token=T;object=KEY?module-path=LIBRARY&pin-source=FILE
                   an AES key of 256 bits on a token; only in a build with cgo`

// kekFlags say where a store's key-encryption key is kept.
type kekFlags struct {
	KEK, KEKFile string

	key kek.Key // as check has read it; nil: the default
}

func (k *kekFlags) add(f *pflag.FlagSet) {
	f.StringVar(&k.KEK, "kek", "", "where the key-encryption key is kept: file:PATH, passphrase:PATH, aws-kms:KEY or pkcs11:…; needed with --etcd-endpoints (default file:DATA-DIR/kek)")
	f.StringVar(&k.KEKFile, "kek-file", "", "the same as --kek file:PATH")
}

func (k *kekFlags) check(endpoints []string) (err error) {
	switch {
	case k.KEK != "" && k.KEKFile != "":
		return usagef("--kek and --kek-file say the same: give one of them")
	case k.KEKFile != "":
		k.key = kek.File{Path: k.KEKFile}
	case k.KEK != "":
		if k.key, err = kek.Parse(k.KEK); err != nil {
			return usagef("--kek: %w", err)
		}
	case len(endpoints) > 0:
		return usagef("--kek-file: must be given with --etcd-endpoints, or --kek, and be the same for all servers of that etcd")
	}
	return nil
}

// storeFlags say which store a command works on without a server.
type storeFlags struct {
	dataDir   string
	endpoints []string
	kekFlags
}

func (s *storeFlags) add(f *pflag.FlagSet) {
	f.StringVar(&s.dataDir, "data-dir", "./fairlead-data", "folder of the embedded store")
	f.StringSliceVar(&s.endpoints, "etcd-endpoints", nil, "URLs of an external etcd (default the embedded one)")
	s.kekFlags.add(f)
}

// config reads the flags, those that variables give among them, as the server does.
func (s *storeFlags) config(cmd *cobra.Command) (store.Config, error) {
	if err := applySettings(cmd.Flags(), os.Getenv); err != nil {
		return store.Config{}, err
	}
	if err := s.check(s.endpoints); err != nil {
		return store.Config{}, err
	}
	log, err := newLogger(&serverConfig{LogLevel: "warn", LogFormat: "text"}, cmd.ErrOrStderr())
	return store.Config{DataDir: s.dataDir, Endpoints: s.endpoints, KEK: s.key, Log: log}, err
}

func newKEKCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "kek",
		Short: "Manage the key-encryption key, which everything secret in a store is sealed with",
		Args:  noArgs,
		RunE:  showHelp,
	}
	cmd.AddCommand(newKEKRotateCommand())
	return cmd
}

func newKEKRotateCommand() *cobra.Command {
	s := &storeFlags{}
	var to string
	var keepOld bool
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Seal every secret of a store anew, under a new key-encryption key",
		Long: `Seals every secret of a store anew, under a new key-encryption key, which may be kept
elsewhere than the old one; after that the old one is of no use. It takes seconds and
may be interrupted at any moment: until it has ended both keys open the store, and
the same command goes on.

The server of an embedded store must be stopped; the file DATA-DIR/kek is made anew
unless --to-kek says otherwise. Servers of an external etcd go on: restart them with the
new key between a run with --keep-old and one without. Sessions of STS that were
made with the old key end.

` + kekHelp,
		Example: `  fairlead kek rotate --data-dir data
  fairlead kek rotate --data-dir data --to-kek aws-kms:alias/fairlead`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			config, err := s.config(cmd)
			if err != nil {
				return err
			}
			rotation := store.Rotation{KeepOld: keepOld}
			switch {
			case to != "":
				if rotation.To, err = kek.Parse(to); err != nil {
					return usagef("--to-kek: %w", err)
				}
			case len(s.endpoints) > 0:
				return usagef("--to-kek: must be given with --etcd-endpoints")
			case config.KEK != nil:
				return usagef("--to-kek: must be given with --kek or --kek-file: only DATA-DIR/kek is made anew by itself")
			}
			if keepOld && len(s.endpoints) == 0 {
				return usagef("--keep-old: only with --etcd-endpoints: no server runs on an embedded store meanwhile")
			}
			told := newProgress(cmd.ErrOrStderr())
			rotation.Progress = func(secrets int) { told.say("secrets sealed anew: %d", secrets) }
			done, err := store.RotateKEK(cmd.Context(), config, rotation)
			if err != nil {
				return explainOpen(s.endpoints, err)
			}
			return reportRotation(cmd.OutOrStdout(), cmd.ErrOrStderr(), done)
		},
	}
	s.add(cmd.Flags())
	cmd.Flags().StringVar(&to, "to-kek", "", "where the new key-encryption key is kept (default a new file in the place of DATA-DIR/kek)")
	cmd.Flags().BoolVar(&keepOld, "keep-old", false, "with --etcd-endpoints: stop before the old key is of no use, to restart servers with the new one; run it again without this")
	return cmd
}

func reportRotation(out, errs io.Writer, done store.Rotated) error {
	for _, key := range done.Lost {
		fmt.Fprintf(errs, "fairlead: the secret at %s opens with no key and stays as it is\n", key)
	}
	var err error
	switch {
	case !done.Done:
		_, err = fmt.Fprintf(out, "%d secrets sealed anew. Both keys open the store: restart its servers with the new one, then run this again without --keep-old.\n", done.Secrets)
	case done.Secrets == 0:
		_, err = fmt.Fprintln(out, "The store is sealed with the new key alone.")
	default:
		_, err = fmt.Fprintf(out, "%d secrets sealed anew. The old key opens the store no more; it still opens backups made before, and copies of the disk.\n", done.Secrets)
	}
	return err
}

// progress says how far long work is, now and then.
type progress struct {
	out  io.Writer
	last time.Time
}

func newProgress(out io.Writer) *progress { return &progress{out: out, last: time.Now()} }

func (p *progress) say(format string, args ...any) {
	if time.Since(p.last) > time.Second {
		p.last = time.Now()
		fmt.Fprintf(p.out, "fairlead: "+format+"\n", args...)
	}
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead/fairlead/internal/awsapi"
	"github.com/fairlead/fairlead/internal/store"
)

func newBackupCommand() *cobra.Command {
	flags := &operatorFlags{}
	var file string
	cmd := &cobra.Command{
		Use:   "backup",
		Short: "Copy the whole store of a running server, as of one moment",
		Long: `Copies the whole store of a running server, as of one moment: meshes, change records,
access keys, authorities and certificates with their keys. It is encrypted and
authenticated with a key that only the store's key-encryption key opens. That is not
in it, and neither are DATA-DIR/credentials and the server's own certificate: keep the
key-encryption key elsewhere, without it a backup is of no use.`,
		Example: `  fairlead backup --output-file fairlead.backup
  fairlead backup | ssh vault 'cat > fairlead.backup'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o, err := flags.connect(cmd)
			if err != nil {
				return err
			}
			if file != "" {
				return backupFile(cmd.Context(), o, file, cmd.ErrOrStderr())
			}
			if isTerminal(cmd.OutOrStdout()) {
				return usagef("a backup is binary: name a file with --output-file, or redirect standard output")
			}
			_, err = o.stream(cmd.Context(), "/fairlead/v1/backup", cmd.OutOrStdout(), newProgress(cmd.ErrOrStderr()))
			return err
		},
	}
	flags.addFormats(cmd)
	cmd.Flags().StringVar(&file, "output-file", "", "write it to this new file, mode 0600, instead of standard output")
	return cmd
}

func isTerminal(out io.Writer) bool {
	f, ok := out.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && f.Name() != os.DevNull
}

// backupFile writes a file that is there whole or not at all.
func backupFile(ctx context.Context, o *operator, name string, errs io.Writer) error {
	if _, err := os.Lstat(name); !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("write backup: %s exists already: name another file", name)
	}
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".part-*") // of mode 0600
	if err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	size, err := o.stream(ctx, "/fairlead/v1/backup", f, newProgress(errs))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Link(f.Name(), name) // unlike a rename, never over another file
	}
	if err := errors.Join(err, os.Remove(f.Name())); err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	fmt.Fprintf(errs, "fairlead: %s has %d bytes\n", name, size)
	return nil
}

// stream copies an answer that is no JSON. It takes the time that it takes.
func (o *operator) stream(ctx context.Context, path string, to io.Writer, told *progress) (size int64, err error) {
	request, err := o.request(ctx, awsapi.OperatorService, http.MethodGet, path, nil)
	if err != nil {
		return 0, err
	}
	response, err := o.client.Do(request)
	if err != nil {
		return 0, unreachable(o.endpoint, err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		body, err := io.ReadAll(response.Body)
		if err != nil {
			return 0, fmt.Errorf("read the server's answer: %w", err)
		}
		return 0, refused(response, body)
	}
	buffer := make([]byte, 256<<10)
	for {
		n, err := response.Body.Read(buffer)
		if _, werr := to.Write(buffer[:n]); werr != nil {
			return size, werr
		}
		size += int64(n)
		if errors.Is(err, io.EOF) {
			return size, nil
		}
		if err != nil {
			return size, fmt.Errorf("the answer broke off after %d bytes, see the server's log: %w", size, err)
		}
		told.say("%d MiB", size>>20)
	}
}

func newRestoreCommand() *cobra.Command {
	s := &storeFlags{}
	cmd := &cobra.Command{
		Use:   "restore BACKUP",
		Short: "Make a new store of a backup",
		Long: `Makes a new store of a backup, in a data directory or an external etcd that has none.
It takes the key-encryption key that the backed up store had: in DATA-DIR/kek, or where
--kek or --kek-file says. The whole backup is verified before anything is written.

The new store is another one to proxies: they hold what they have until 'fairlead proxy
accept-shrink' releases them. If it is interrupted there is no store, and the
server says so; the same command begins anew.

` + kekHelp,
		Example: `  install -d -m 700 data.new && cp vault/kek data.new/
  fairlead restore --data-dir data.new fairlead.backup`,
		Args: oneArg("the file of a backup"),
		RunE: func(cmd *cobra.Command, args []string) error {
			config, err := s.config(cmd)
			if err != nil {
				return err
			}
			f, err := os.Open(args[0])
			if err != nil {
				return fmt.Errorf("read the backup: %w", err)
			}
			defer f.Close()
			told := newProgress(cmd.ErrOrStderr())
			done, err := store.Restore(cmd.Context(), config, f, func(written, keys int) { told.say("%d of %d keys written", written, keys) })
			if errors.Is(err, store.ErrNotEmpty) {
				return fmt.Errorf("%w: a backup is restored beside it, never over it", err)
			}
			if err != nil {
				return explainOpen(s.endpoints, err)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), `Restored %d keys as of %s (revision %d); the store's lineage is %s.
Certificates that were issued after that are not in its ledger: they are valid until they expire, and cannot be revoked.
Certificates that were revoked and access keys that were deleted after that are good again: revoke and delete them anew.
Proxies hold what they have: see 'fairlead proxy list' when the server runs.
`, done.Keys, done.Made.UTC().Format(time.RFC3339), done.Revision, done.Lineage)
			return err
		},
	}
	s.add(cmd.Flags())
	return cmd
}

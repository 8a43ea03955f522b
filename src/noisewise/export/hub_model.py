"""A model with the methods of the Hub: save_pretrained, from_pretrained, push_to_hub.

    model = HubModel.of("runs/mine", license="cc0-1.0")
    model.push_to_hub("me/mine")

    model = HubModel.from_pretrained("me/mine")
    pictures = model.sample(16)

The three methods are those of huggingface_hub's mixin, which is needed to import this module.
"""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import ModelHubMixin, get_token, snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from PIL import Image
from torch import Tensor

from noisewise.export.hub_folder import save
from noisewise.export.source import Source, open_source
from noisewise.plain_files import read_plain
from noisewise.training.models.model import Labels
from noisewise.training.models.model_folder import load_model
from noisewise.training.models.models import Generator, Teacher
from noisewise.training.run.run import Run

_MOST_CARD = 2**20  # bytes


class HubModel(ModelHubMixin, library_name="noisewise", tags=["noisewise", "pixel-diffusion"]):
    """A generator or a teacher, to be published or as it was published.

    Attributes:
        model: the generator or teacher itself, a `torch.nn.Module`.
        source: the model and what is known about it.

    Args:
        source: from `HubModel.of`, or `from_pretrained`.
    """

    def __init__(self, source: Source) -> None:
        """Wrap a model; see the class."""
        self.source = source

    @classmethod
    def of(
        cls,
        run: Run | str | Path | Generator | Teacher,
        teacher: bool = False,
        license: str = "",
        note: str = "",
        repo: str = "",
    ) -> HubModel:
        """Take a model to publish it.

        Args:
            run: a run, its folder, the folder of a model, or a model in memory.
            teacher: the teacher of a run instead of its generator.
            license: of the model, such as "cc0-1.0".
            note: for people who will use the model, such as the intended use.
            repo: name on the Hub, for the text of the model card.

        Raises:
            ValueError: if there is no such model.
        """
        return cls(open_source(run, teacher, license, note, repo))

    @property
    def model(self) -> Generator | Teacher:
        """The generator or teacher."""
        return self.source.model

    def sample(
        self,
        num_images: int | None = None,
        seed: int = 0,
        label: Labels | None = None,
        calls: int | None = None,
    ) -> Tensor:
        """Draw pictures, float [num_images, c, h, w] in [-1, 1]; see `Generator.sample`."""
        return self.model.sample(num_images, seed, label, calls)

    def grid(
        self, num_images: int | None = None, seed: int = 0, label: Labels | None = None
    ) -> Image.Image:
        """Draw pictures and lay them out in rows; see `Generator.grid`."""
        return self.model.grid(num_images, seed, label)

    def __repr__(self) -> str:
        """That of the model."""
        return f"HubModel({self.model!r})"

    def push_to_hub(  # pyrefly: ignore[bad-override] (fewer arguments, with the mixin's names)
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        commit_message: str = "Upload a model of noisewise",
    ) -> str:
        """Write the folder and upload it.

        Args:
            repo_id: "user/name"; it is made if it does not exist.
            private: whether a new repository is private; None: as the account's settings say.
            token: of the account; None: the one of `hf auth login`.
            commit_message: of the upload.

        Returns:
            The address of the commit.

        Raises:
            ValueError: without a login, if the name cannot be used, or the Hub refuses it.
        """
        if token is None:
            check_login(repo_id)
        try:
            return super().push_to_hub(
                repo_id, private=private, token=token, commit_message=commit_message
            )
        except (HfHubHTTPError, OSError) as error:
            first = str(error).strip().splitlines()[0] if str(error).strip() else "no answer"
            raise ValueError(
                f"the Hugging Face Hub did not take {repo_id} ({first}); nothing here was changed"
            ) from error

    def _save_pretrained(self, save_directory: Path) -> None:
        """Write the files; called by the mixin."""
        save(self.source, Path(save_directory))

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
    ) -> HubModel:
        """Load a folder, after downloading it if it is on the Hub; called by the mixin."""
        folder = Path(model_id)
        if not folder.is_dir():
            folder = Path(
                snapshot_download(
                    model_id,
                    revision=revision,
                    cache_dir=cache_dir,
                    force_download=force_download,
                    local_files_only=local_files_only,
                    token=token,
                    allow_patterns=["*.json", "*.safetensors", "README.md", "teacher/*"],
                )
            )
        card = folder / "README.md"
        text = read_plain(card.resolve(), _MOST_CARD).decode("utf-8") if card.exists() else ""
        return cls(Source(load_model(folder), Path(model_id).name, card=text))


def check_login(repo_id: str) -> None:
    """Refuse an upload that nobody is logged in for, before anything is drawn or written.

    Raises:
        ValueError: with the command that logs in.
    """
    if get_token() is None:
        raise ValueError(
            f"you are not logged in to the Hugging Face Hub, so {repo_id} cannot be uploaded; run "
            "`hf auth login` once, or set HF_TOKEN"
        )
